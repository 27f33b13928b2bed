{{- /*
For charts of apps that have this one among their dependencies, with `mode: sidecar`. Each is given the context of this chart:

  {{- with include "hotring.initContainers" .Subcharts.hotring }}
  initContainers:
    {{- . | nindent 8 }}
  {{- end }}
  containers:
    - name: app
      volumeMounts:
        {{- include "hotring.appVolumeMounts" .Subcharts.hotring | nindent 12 }}
    {{- with include "hotring.containers" .Subcharts.hotring }}
    {{- . | nindent 8 }}
    {{- end }}
  volumes:
    {{- include "hotring.volumes" .Subcharts.hotring | nindent 8 }}
  terminationGracePeriodSeconds: {{ include "hotring.terminationGracePeriodSeconds" .Subcharts.hotring }}

Of initContainers and containers one is empty, as `sidecar.native` says. deploy/helm/app is a whole chart that does so.
*/ -}}
{{- define "hotring.initContainers" -}}
{{- if .Values.sidecar.native -}}
- name: hotring
  restartPolicy: Always
  {{- include "hotring.container" . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "hotring.containers" -}}
{{- if not .Values.sidecar.native -}}
- name: hotring
  {{- include "hotring.container" . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "hotring.appVolumeMounts" -}}
{{- if .Values.sidecar.socket -}}
- {name: hotring-socket, mountPath: /run/hotring}
{{- end -}}
{{- end -}}

{{- define "hotring.volumes" -}}
- name: hotring-config
  configMap: {name: {{ include "hotring.configMap" . }}}
{{- if and (eq .Values.mode "sidecar") .Values.sidecar.socket }}
- name: hotring-socket
  emptyDir: {sizeLimit: 1Mi}
{{- end }}
{{- /* Whose group the files have is the app's matter in a sidecar; they are in memory, and this pod's alone. */ -}}
{{- range include "hotring.secrets" . | fromYamlArray }}
- name: hotring-secret-{{ . }}
  secret: {secretName: {{ . }}, defaultMode: {{ ternary "0444" "0440" (eq $.Values.mode "sidecar") }}}
{{- end }}
{{- end -}}
