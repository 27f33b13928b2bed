{{- define "hotring.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "hotring.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hotring.labels" -}}
{{ include "hotring.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "hotring.configMap" -}}
{{- default (include "hotring.fullname" .) .Values.existingConfigMap -}}
{{- end -}}

{{- /* How long hotring goes on after SIGTERM. A native sidecar is told to end when the app has ended. */ -}}
{{- define "hotring.delaySeconds" -}}
{{- if ne .Values.mode "sidecar" -}}
{{- .Values.drain.delaySeconds | int -}}
{{- else if .Values.sidecar.native -}}
0
{{- else -}}
{{- .Values.sidecar.appSeconds | int -}}
{{- end -}}
{{- end -}}

{{- /* All of the end: the app's, hotring's, and some seconds for the kubelet. */ -}}
{{- define "hotring.terminationGracePeriodSeconds" -}}
{{- $before := include "hotring.delaySeconds" . | int -}}
{{- if eq .Values.mode "sidecar" -}}
{{- $before = .Values.sidecar.appSeconds | int -}}
{{- end -}}
{{- add $before (.Values.drain.timeoutSeconds | int) 5 -}}
{{- end -}}

{{- /* The proxy.yaml: what `config` says, and what it leaves out. */ -}}
{{- define "hotring.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $seconds := .Values.drain.timeoutSeconds | int -}}
{{- $drain := dict "delay" (printf "%ss" (include "hotring.delaySeconds" .)) "timeout" (printf "%ds" $seconds) -}}
{{- $own := dict "admin" (printf "%s:%d" .Values.bindAddress (int .Values.adminPort)) "drain" $drain -}}
{{- if .Values.adminToken.existingSecret -}}
{{- $_ := set $own "admin_token_file" (printf "/etc/hotring-secrets/%s/%s" .Values.adminToken.existingSecret .Values.adminToken.key) -}}
{{- end -}}
{{- $config = mergeOverwrite $own $config -}}
{{- range $name, $port := .Values.tlsPorts -}}
{{- $pool := index $config.pools $name -}}
{{- if and $port $pool (not (hasKey $pool "listen_tls")) -}}
{{- if not (hasKey $pool "tls") }}{{ fail (printf "tlsPorts.%s: the pool has no `tls` with `cert` and `key`" $name) }}{{ end -}}
{{- $_ := set $pool "listen_tls" (printf "%s:%d" (ternary "127.0.0.1" $.Values.bindAddress (eq $.Values.mode "sidecar")) (int $port)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $pool := $config.pools -}}
{{- if and $pool (not (hasKey $pool "listen")) -}}
{{- $listen := list -}}
{{- $port := index $.Values.ports $name -}}
{{- if eq $.Values.mode "sidecar" -}}
{{- if $port }}{{ $listen = append $listen (printf "127.0.0.1:%d" (int $port)) }}{{ end -}}
{{- if $.Values.sidecar.socket }}{{ $listen = append $listen (printf "/run/hotring/%s.sock 0666" $name) }}{{ end -}}
{{- else if $port -}}
{{- $listen = append $listen (printf "%s:%d" $.Values.bindAddress (int $port)) -}}
{{- end -}}
{{- if not (or $listen (hasKey $pool "listen_tls")) }}{{ fail (printf "ports.%s: the pool has no port, and no `listen` of its own" $name) }}{{ end -}}
{{- if $listen }}{{ $_ := set $pool "listen" $listen }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- /* All Secrets that are mounted, that of the token among them, as YAML. */ -}}
{{- define "hotring.secrets" -}}
{{- append .Values.secrets .Values.adminToken.existingSecret | compact | uniq | toYaml -}}
{{- end -}}

{{- /* The pools that there are and have ports, as YAML of names and numbers. */ -}}
{{- define "hotring.ports" -}}
{{- $ports := dict -}}
{{- range $name, $port := .Values.ports -}}
{{- if and $port (or $.Values.existingConfigMap (index $.Values.config.pools $name)) -}}
{{- $_ := set $ports $name (int $port) -}}
{{- end -}}
{{- end -}}
{{- range $name, $port := .Values.tlsPorts -}}
{{- if and $port (or $.Values.existingConfigMap (index $.Values.config.pools $name)) -}}
{{- $_ := set $ports (printf "tls-%s" $name) (int $port) -}}
{{- end -}}
{{- end -}}
{{- toYaml $ports -}}
{{- end -}}

{{- /* The name of a pool's port: 15 characters at most, none that Kubernetes does not allow. */ -}}
{{- define "hotring.portName" -}}
{{- regexReplaceAll "[^a-z0-9-]+" (lower .) "-" | trunc 15 | trimAll "-" -}}
{{- end -}}

{{- define "hotring.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "hotring.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* One container, without what depends on how it runs beside others. */ -}}
{{- define "hotring.container" -}}
image: {{ include "hotring.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: ["-c", "/etc/hotring/proxy.yaml"]
{{- with .Values.env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: hotring-admin, containerPort: {{ int .Values.adminPort }}, protocol: TCP}
  {{- if ne .Values.mode "sidecar" }}
  {{- range $name, $port := include "hotring.ports" . | fromYaml }}
  - name: {{ include "hotring.portName" $name }}
    containerPort: {{ int $port }}
    {{- if and (eq $.Values.mode "daemonset") $.Values.hostPort }}
    hostPort: {{ int $port }}
    {{- end }}
    protocol: TCP
  {{- end }}
  {{- end }}
# The app's container is started when this has succeeded (native sidecars), and the other probes begin with it.
startupProbe:
  httpGet: {path: /readyz, port: hotring-admin}
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: hotring-admin}
  periodSeconds: 5
  timeoutSeconds: 2
livenessProbe:
  httpGet: {path: /healthz, port: hotring-admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  # Whole directories: a file that is mounted by `subPath` is never changed.
  - {name: hotring-config, mountPath: /etc/hotring, readOnly: true}
  {{- if and (eq .Values.mode "sidecar") .Values.sidecar.socket }}
  - {name: hotring-socket, mountPath: /run/hotring}
  {{- end }}
  {{- range include "hotring.secrets" . | fromYamlArray }}
  - {name: hotring-secret-{{ . }}, mountPath: /etc/hotring-secrets/{{ . }}, readOnly: true}
  {{- end }}
{{- end -}}
