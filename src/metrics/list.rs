//! The list. A metric is one entry here: its doc comment is its help text, its type is how it is counted.
//!
//! `client_` is the app's side, `server_` the shards' side; the stems are twemproxy's where they mean the same.

use super::export::{Exporter, Series};
use super::tally::{Label, Level, Per, Setting, Tally, Told, ToldCount};
use super::{Buckets, LatencyHistogram, Metric, Unit};

/// `about Counts Metrics [labels] { help field: Type = "name", Unit; ... }` for each scope.
macro_rules! declare {
    ($(
        $(#[doc = $about:literal])+
        $counts:ident $metrics:ident $labels:tt {
            $( $(#[doc = $help:literal])+ $field:ident: $ty:ty = $name:literal, $unit:ident; )+
        }
    )+) => {
        /// Every metric, in the order in which they are rendered.
        pub const METRICS: &[Metric] = &[$($(
            Metric {
                name: $name,
                kind: <$ty as Tally>::KIND,
                scope: &$labels,
                by: <$ty as Tally>::BY,
                unit: Unit::$unit,
                help: concat!($($help),+).trim_ascii(),
            },
        )+)+];
        $(
            $(#[doc = $about])+
            ///
            /// One worker's own numbers, to be folded into the handles of the same scope.
            #[derive(Debug, Default)]
            pub struct $counts {
                $( $(#[doc = $help])+ pub $field: $ty, )+
            }

            #[doc = concat!("One holder's handles for [`", stringify!($counts), "`]. Dropping them takes its gauges back.")]
            pub struct $metrics {
                $( $field: <$ty as Tally>::Handle, )+
            }

            impl $metrics {
                pub(super) fn of(exporter: &Exporter, values: &[&str]) -> Self {
                    Self { $( $field: {
                        let metric = METRICS.iter().find(|metric| metric.name == $name).expect("declared just above");
                        <$ty as Tally>::handle(&Series::new(exporter, metric, values))
                    }, )+ }
                }

                /// Publishes what changed: counters and histograms start again from 0, levels stay. The same handles
                /// always go with the same counts.
                pub fn fold(&mut self, counts: &mut $counts) {
                    $( Tally::fold(&mut counts.$field, &mut self.$field); )+
                }
            }

            impl std::fmt::Debug for $metrics {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(stringify!($metrics))
                }
            }
        )+
    };
}

/// The values of a label: `about Name "label" { meaning Variant = "value", ... }`.
macro_rules! label {
    ($(#[$about:meta])+ $label:ident $name:literal { $( $(#[$meaning:meta])+ $variant:ident = $value:literal, )+ }) => {
        $(#[$about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $label { $( $(#[$meaning])+ $variant, )+ }

        impl $label {
            /// How many values there are.
            pub const COUNT: usize = <Self as Label>::ALL.len();
        }

        impl Label for $label {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$( Self::$variant, )+];

            fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $value, )+ }
            }

            #[inline]
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

declare! {
    /// What a pool's apps do and get.
    PoolCounts PoolMetrics ["pool"] {
        /// Open app connections.
        client_connections: Level = "hotring_client_connections", One;
        /// App connections accepted.
        client_connects: u64 = "hotring_client_connects_total", One;
        /// App connections closed at once because `client_connections` were open, no descriptor was left or the memory budget was used up.
        client_refused: u64 = "hotring_client_refused_total", One;
        /// App connections the app closed.
        client_eof: u64 = "hotring_client_eof_total", One;
        /// App connections lost to an error, such as a reset.
        client_err: u64 = "hotring_client_err_total", One;
        /// App connections closed because the app did not read its replies and the output limit was reached.
        client_output_limit_kills: u64 = "hotring_client_output_limit_kills_total", One;
        /// App connections that hotring closed for standing still or for holding too much, by why.
        client_closed: Per<Closed, u64, { Closed::COUNT }> = "hotring_client_closed_total", One;
        /// Open app connections with TLS, past the handshake.
        client_tls_connections: Level = "hotring_client_tls_connections", One;
        /// App connections whose TLS handshake is under way.
        client_tls_handshaking: Level = "hotring_client_tls_handshaking", One;
        /// TLS handshakes with apps that came about.
        client_tls_handshakes: u64 = "hotring_client_tls_handshakes_total", One;
        /// TLS handshakes with apps that did not, by why.
        client_tls_failures: Per<TlsFailure, u64, { TlsFailure::COUNT }> = "hotring_client_tls_handshake_failures_total", One;
        /// Time from accepting an app's connection to the end of its TLS handshake.
        client_tls_duration: LatencyHistogram = "hotring_client_tls_handshake_duration_seconds", Seconds;
        /// TLS handshakes with servers that came about, those of probes included.
        server_tls_handshakes: u64 = "hotring_server_tls_handshakes_total", One;
        /// TLS handshakes with servers that did not, by why.
        server_tls_failures: Per<TlsFailure, u64, { TlsFailure::COUNT }> = "hotring_server_tls_handshake_failures_total", One;
        /// Times a session was no longer read from for a while, by what was full.
        client_pauses: Per<Full, u64, { Full::COUNT }> = "hotring_client_pauses_total", One;
        /// Bytes of replies that apps have not read yet.
        client_output_bytes: Level = "hotring_client_output_bytes", Bytes;
        /// Requests that have no reply yet.
        requests_pending: Level = "hotring_requests_pending", One;
        /// Requests read from apps.
        requests: Per<Class, u64, { Class::COUNT }> = "hotring_requests_total", One;
        /// Bytes of requests read from apps.
        request_bytes: u64 = "hotring_request_bytes_total", Bytes;
        /// Replies written to apps, errors included.
        replies: u64 = "hotring_replies_total", One;
        /// Bytes of replies written to apps.
        reply_bytes: u64 = "hotring_reply_bytes_total", Bytes;
        /// Error replies of hotring's own.
        errors: Per<Cause, u64, { Cause::COUNT }> = "hotring_errors_total", One;
        /// Error replies of shards, passed on unchanged.
        shard_errors: u64 = "hotring_shard_errors_total", One;
        /// Replies that came when their app was gone.
        orphans: u64 = "hotring_orphan_replies_total", One;
        /// Commands sent to shards for requests that were split over several of them.
        fragments: u64 = "hotring_fragments_total", One;
        /// Requests answered with the reply to an equal request that was on its way already.
        joined_requests: u64 = "hotring_joined_requests_total", One;
        /// Reads of hot keys that waited behind an equal one which was out, to leave together (`merge`).
        merge_waits: u64 = "hotring_merge_waits_total", One;
        /// Reads that wait so now.
        merge_waiting: Level = "hotring_merge_waiting", One;
        /// Reads none of whose bytes had left when their connection was lost, and that were sent on the next one.
        retried_reads: u64 = "hotring_retried_reads_total", One;
        /// Requests that a node of a cluster did not carry out and that were sent again, by what it said.
        redirects: Per<Redirected, u64, { Redirected::COUNT }> = "hotring_redirects_total", One;
        /// Requests that wait for their slot to have settled.
        redirects_waiting: Level = "hotring_redirects_waiting", One;
        /// Bytes of them.
        redirects_waiting_bytes: Level = "hotring_redirects_waiting_bytes", Bytes;
        /// Reads answered as if their keys did not exist, since their backend is ejected; parts of split ones count each.
        missed: u64 = "hotring_missed_total", One;
        /// Keys that are hot or warm on any worker, as HOTRING HOTKEYS tells.
        hot_keys: Setting = "hotring_hot_keys", One;
        /// The largest share of the requests, or of the bytes of replies, that one key surely has; 0 where none is hot or warm.
        hot_key_share: Setting = "hotring_hot_key_share_max", Ratio;
        /// Keys that have become hot or warm; each worker counts its own.
        hot_entered: u64 = "hotring_hot_keys_entered_total", One;
        /// Keys that are hot or warm no more.
        hot_left: u64 = "hotring_hot_keys_left_total", One;
        /// Reads that would have been served from elsewhere than their key's backend, where that is only observed.
        hot_would_serve: u64 = "hotring_hot_would_serve_total", One;
        /// How many times the average of the pool's backends the busiest one was sent in about ten seconds; 1 is even.
        shard_imbalance: Setting = "hotring_shard_imbalance", Ratio;
        /// Reads of hot keys answered from memory.
        near_hits: u64 = "hotring_near_hits_total", One;
        /// Reads of hot keys made in order to answer further ones from memory.
        near_fills: u64 = "hotring_near_fills_total", One;
        /// Reads of hot keys answered with what was being read in order to answer further ones from memory.
        near_joined: u64 = "hotring_near_joined_total", One;
        /// Changes of hot keys that backends have told of.
        near_invalidations: u64 = "hotring_near_invalidations_total", One;
        /// Times all that was kept of a backend's keys was given up, since the connection on which it tells of changes was lost or it said so.
        near_flushes: u64 = "hotring_near_flushes_total", One;
        /// Bytes of values of hot keys that are kept in memory, beside `max_memory`.
        near_bytes: Level = "hotring_near_bytes", Bytes;
        /// Answers that did not come from their key's backend and were compared with it.
        audited: u64 = "hotring_audited_total", One;
        /// Those of them that said something else than the backend, by how long the same would have been answered.
        audit_stale: Per<Stale, u64, { Stale::COUNT }> = "hotring_audit_stale_total", One;
        /// Backends that do not tell of changes, or not to this user: what is kept of their keys lives for `max_staleness` only.
        untracked: Level = "hotring_near_untracked_backends", One;
        /// Reads of hot keys sent to copies on other backends than their own.
        copy_reads: u64 = "hotring_copy_reads_total", One;
        /// Reads of hot keys answered by copies; the others were sent on to the keys' own backends.
        copy_hits: u64 = "hotring_copy_hits_total", One;
        /// Copies of hot keys that this process has made on other backends.
        copy_fills: u64 = "hotring_copy_fills_total", One;
        /// Copies of hot keys that another process had made first.
        copy_fill_lost: u64 = "hotring_copy_fills_lost_total", One;
        /// Copies of hot keys that this process has taken away since their keys changed or are hot no more.
        copy_unlinks: u64 = "hotring_copy_unlinks_total", One;
        /// Reads sent to replicas, of hot keys or by `read_from`.
        replica_reads: u64 = "hotring_replica_reads_total", One;
        /// Reads that `read_from` has a replica answer and that went to their key's own backend: no replica was fit, or the key was written here a moment ago.
        reads_kept: u64 = "hotring_replica_reads_kept_total", One;
        /// Reads sent to replicas that were sent on to their key's own backend, or to another replica, since the replica was lost, did not answer in time or answered with an error.
        replica_second_tries: u64 = "hotring_replica_second_tries_total", One;
        /// Replicas that reads are not sent to though there are such reads, since they are not known to be up to date; each worker counts.
        replicas_behind: Level = "hotring_replicas_behind", One;
        /// Times a client was told that a key with a lease is not there, and was expected to write it.
        misses_leased: u64 = "hotring_misses_leased_total", One;
        /// Times a second client asked for a key that one was loading already.
        stampedes: u64 = "hotring_stampedes_total", One;
        /// Reads that waited for a key that another client was loading; elements of MGET count each.
        lease_waits: u64 = "hotring_lease_waits_total", One;
        /// Reads that wait so now.
        lease_waiting: Level = "hotring_lease_waiting", One;
        /// Of those that waited the ones that got the value: loads that were saved.
        lease_waits_saved: u64 = "hotring_lease_waits_saved_total", One;
        /// Of those that waited the ones that were told in the end that the key is not there.
        lease_timeouts: u64 = "hotring_lease_timeouts_total", One;
        /// Keys whose client closed its connection before it wrote them.
        lease_holder_deaths: u64 = "hotring_lease_holder_deaths_total", One;
        /// Keys whose client did not write them in the time it was given.
        lease_unwritten: u64 = "hotring_lease_unwritten_total", One;
        /// Reads that would have waited where that is only observed.
        lease_observed: u64 = "hotring_lease_observed_total", One;
        /// Times a client was told shortly before a key expired that it is not there (`cache_aside`).
        early_refreshes: u64 = "hotring_early_refreshes_total", One;
        /// Times one would have been where that is only observed.
        early_observed: u64 = "hotring_early_observed_total", One;
        /// Reads that were told what the key had before it expired, in place of waiting (`stale`).
        lease_stale: u64 = "hotring_lease_stale_total", One;
        /// Reads that would have been where that is only observed.
        lease_stale_observed: u64 = "hotring_lease_stale_observed_total", One;
        /// Values that were loaded before their key was written or deleted by somebody else, and not written (`guard_stale_set`).
        stale_sets: u64 = "hotring_stale_sets_total", One;
        /// Reads made for those that waited.
        lease_reads: u64 = "hotring_lease_reads_total", One;
        /// Backends where leases are this process' own though they are to be the fleet's, since they do not tell of changes; each worker counts.
        lease_untracked: Level = "hotring_lease_untracked_backends", One;
        /// How long reads waited.
        lease_wait: LatencyHistogram = "hotring_lease_wait_seconds", Seconds;
        /// Times to live that were shortened (`ttl_jitter`).
        ttl_shortened: u64 = "hotring_ttl_shortened_total", One;
        /// Replies that a key is not there that were withheld, since a `miss_budget` was used up.
        misses_refused: u64 = "hotring_misses_refused_total", One;
        /// Reads answered at once since their ids are not in `absent_ids`.
        absent_answered: u64 = "hotring_absent_answered_total", One;
        /// Ids that exist: those listed in `absent_ids`, and those that were written to since and are remembered beside them.
        absent_ids: Setting = "hotring_absent_ids", One;
        /// Memory of the lists in `absent_ids`; what was written to since takes 16 bytes an id beside it.
        absent_bytes: Setting = "hotring_absent_bytes", Bytes;
        /// Of ids that do not exist, the part that is to be expected to be asked for at a server all the same; 1 where so many were written to that no id is known not to exist.
        absent_false: Setting = "hotring_absent_false_ratio", Ratio;
        /// GETs, and elements of MGET, that found nothing at their key's home and were answered by where it lived before (`warm_from`).
        warm_hits: u64 = "hotring_warm_hits_total", One;
        /// Those that found nothing at their home, and not where they lived before either, if that was asked.
        warm_misses: u64 = "hotring_warm_misses_total", One;
        /// Keys copied from where they lived before to their home.
        warm_copies: u64 = "hotring_warm_copies_total", One;
        /// Of the misses those where nobody was asked: `warm_rate` was used up, or where the key lived before is not to be trusted.
        warm_refused: u64 = "hotring_warm_refused_total", One;
        /// Keys that were forgotten where they lived before since they were about to be written.
        warm_forgotten: u64 = "hotring_warm_forgotten_total", One;
        /// Times a server where keys lived before could not be told of a write, and was not asked by this process from then on.
        warm_distrusts: u64 = "hotring_warm_distrusts_total", One;
        /// Seconds until keys are not looked for any more where they lived before.
        warm_left: Level = "hotring_warm_left_seconds", Seconds;
        /// Requests that `routes` has led to other pools, or that were split over them; there they count once more.
        routed: u64 = "hotring_routed_requests_total", One;
        /// Requests of which a copy was sent to the mirror; a split one counts once.
        mirrored: u64 = "hotring_mirrored_total", One;
        /// Requests that were to be mirrored and of which no copy was sent, by why.
        mirror_dropped: Per<Dropped, u64, { Dropped::COUNT }> = "hotring_mirror_dropped_total", One;
        /// Requests for keys that are mirrored that never are, by why.
        mirror_skipped: Per<Skipped, u64, { Skipped::COUNT }> = "hotring_mirror_skipped_total", One;
        /// Copies that the mirror answered with an error, or whose connection was lost before it answered; parts of split ones count each.
        mirror_errors: u64 = "hotring_mirror_errors_total", One;
        /// Commands sent to the mirror that are not answered yet.
        mirror_in_flight: Level = "hotring_mirror_in_flight", One;
        /// Reads whose reply was to be compared with the mirror's, by what came of it.
        mirror_compared: Per<Compared, u64, { Compared::COUNT }> = "hotring_mirror_compared_total", One;
        /// Reads whose reply is being compared now, or is to be again.
        mirror_comparing: Level = "hotring_mirror_comparing", One;
        /// Of the different ones those that were so whenever they were looked at again.
        mirror_confirmed: u64 = "hotring_mirror_mismatches_confirmed_total", One;
        /// Requests that a fault was injected into, by what was done.
        faults: Per<Injected, u64, { Injected::COUNT }> = "hotring_faults_injected_total", One;
        /// Replies that are held back now, since a fault says so.
        faults_delayed: Level = "hotring_faults_delayed", One;
        /// Rules by which faults are injected now.
        fault_rules: Setting = "hotring_fault_rules", One;
        /// Requests that took `slowlog_slower_than` or longer.
        slow_requests: u64 = "hotring_slow_requests_total", One;
        /// Time from reading a request to having its reply.
        request_duration: Per<Class, LatencyHistogram, { Class::COUNT }> = "hotring_request_duration_seconds", Seconds;
        /// The part of it that requests spent in hotring: until they were sent, and for whatever else they had to wait for here.
        proxy_duration: Buckets<false> = "hotring_proxy_duration_seconds", Seconds;
        /// Keys that GET, GETEX, GETDEL, MGET and fields that HGET asked for and that were there.
        hits: u64 = "hotring_hits_total", One;
        /// Those that were not.
        misses: u64 = "hotring_misses_total", One;
    }

    /// What is counted of one command; of those beyond the 64 first that a pool sees, as `other`.
    CommandCounts CommandMetrics ["pool", "command"] {
        /// Requests read from apps, by command.
        requests: u64 = "hotring_command_requests_total", One;
        /// Error replies to them, a shard's or hotring's own.
        errors: u64 = "hotring_command_errors_total", One;
        /// Time from reading a request to having its reply, by command.
        duration: Buckets<true> = "hotring_command_duration_seconds", Seconds;
    }

    /// What is counted of keys that begin with one of `metrics_prefixes`.
    PrefixCounts PrefixMetrics ["pool", "prefix"] {
        /// Requests whose first key has this as the longest of `metrics_prefixes` that it begins with.
        requests: u64 = "hotring_prefix_requests_total", One;
        /// Bytes of them.
        request_bytes: u64 = "hotring_prefix_request_bytes_total", Bytes;
        /// Bytes of their replies.
        reply_bytes: u64 = "hotring_prefix_reply_bytes_total", Bytes;
        /// Keys with this prefix that were asked for as in `hotring_hits_total`, and were there.
        hits: u64 = "hotring_prefix_hits_total", One;
        /// Those that were not.
        misses: u64 = "hotring_prefix_misses_total", One;
    }

    /// What goes to and comes from one backend.
    BackendCounts BackendMetrics ["pool", "backend"] {
        /// Open connections to the backend.
        server_connections: Level = "hotring_server_connections", One;
        /// Connections made to the backend, handshake included.
        server_connects: u64 = "hotring_server_connects_total", One;
        /// Attempts at a connection that failed, handshake included.
        server_connect_failures: u64 = "hotring_server_connect_failures_total", One;
        /// Connections the backend closed.
        server_eof: u64 = "hotring_server_eof_total", One;
        /// Connections lost to an error, such as a reset or bytes that are no reply.
        server_err: u64 = "hotring_server_err_total", One;
        /// Connections closed because a reply did not come in time.
        server_timedout: u64 = "hotring_server_timedout_total", One;
        /// Connections whose opening had to wait because `reconnect_rate` was reached.
        server_connects_delayed: u64 = "hotring_server_connects_delayed_total", One;
        /// Connections that changed to another address because the backend's name no longer led to the old one.
        server_moves: u64 = "hotring_server_moves_total", One;
        /// Times the backend was ejected.
        server_ejects: u64 = "hotring_server_ejects_total", One;
        /// How many workers have the backend ejected now.
        server_ejected: Level = "hotring_server_ejected", One;
        /// How many workers see the backend in this state.
        server_state: Per<ServerState, Level, { ServerState::COUNT }> = "hotring_server_state", One;
        /// Commands sent to the backend, the proxy's own included.
        server_requests: u64 = "hotring_server_requests_total", One;
        /// Bytes of commands sent to the backend.
        server_request_bytes: u64 = "hotring_server_request_bytes_total", Bytes;
        /// Replies read from the backend.
        server_responses: u64 = "hotring_server_responses_total", One;
        /// Bytes of replies read from the backend.
        server_response_bytes: u64 = "hotring_server_response_bytes_total", Bytes;
        /// Commands that wait to be sent to the backend.
        in_queue: Level = "hotring_server_in_queue", One;
        /// Bytes of commands that wait to be sent to the backend.
        in_queue_bytes: Level = "hotring_server_in_queue_bytes", Bytes;
        /// Commands sent whose reply has not come.
        out_queue: Level = "hotring_server_out_queue", One;
        /// Time from sending commands to having their replies, but for those that wait for something to happen.
        server_duration: Buckets<false> = "hotring_server_duration_seconds", Seconds;
    }

    /// What a backend tells of itself (`info_interval`); what it does not tell is not there.
    InfoCounts InfoMetrics ["pool", "backend"] {
        /// Memory that the server uses.
        used_memory: Told = "hotring_server_used_memory_bytes", Bytes;
        /// Memory that it may use for keys; 0 is no bound.
        max_memory: Told = "hotring_server_max_memory_bytes", Bytes;
        /// Keys that it has removed to make room.
        evicted_keys: ToldCount = "hotring_server_evicted_keys_total", One;
        /// Keys that it has removed because their time was over.
        expired_keys: ToldCount = "hotring_server_expired_keys_total", One;
        /// Look-ups of keys by anyone that found them.
        keyspace_hits: ToldCount = "hotring_server_keyspace_hits_total", One;
        /// Look-ups of keys by anyone that did not.
        keyspace_misses: ToldCount = "hotring_server_keyspace_misses_total", One;
        /// Connections that it has, from anyone.
        clients: Told = "hotring_server_clients", One;
        /// Connections that it may have.
        max_clients: Told = "hotring_server_max_clients", One;
        /// Connections that it refused since it had as many as it may have.
        rejected_clients: ToldCount = "hotring_server_rejected_clients_total", One;
        /// Commands that it has carried out for anyone.
        commands: ToldCount = "hotring_server_commands_total", One;
        /// Commands a second that it says to carry out now.
        operations: Told = "hotring_server_operations_per_second", One;
        /// 1 for what it is.
        role: Per<Role, Told, { Role::COUNT }> = "hotring_server_role", One;
        /// Of a primary, the replicas that are connected to it.
        replicas: Told = "hotring_server_replicas", One;
        /// Of a primary, how many bytes the replica farthest behind has not confirmed.
        replica_lag_bytes: Told = "hotring_server_replica_lag_bytes", Bytes;
        /// Of a primary, how long ago the replica that was quiet for longest has confirmed anything.
        replica_lag: Told = "hotring_server_replica_lag_seconds", Seconds;
        /// Of a replica, 1 while it is connected to its primary.
        link_up: Told = "hotring_server_replication_link_up", One;
        /// Of a replica, how long ago it has heard of its primary.
        link_silence: Told = "hotring_server_replication_silence_seconds", Seconds;
        /// 1 while what it wrote to disk last has failed, by what.
        write_failed: Per<Written, Told, { Written::COUNT }> = "hotring_server_write_failed", One;
        /// 1 while it loads its data and answers nothing.
        loading: Told = "hotring_server_loading", One;
        /// How long it has been running.
        uptime: Told = "hotring_server_uptime_seconds", Seconds;
    }

    /// Which version a backend is of, as it tells.
    VersionCounts VersionMetrics ["pool", "backend", "version"] {
        /// Always 1; the label has the version of the server.
        info: Told = "hotring_server_build_info", One;
    }

    /// What a limit of a pool has let through and kept away.
    LimitCounts LimitMetrics ["pool", "limit"] {
        /// Requests refused because the limit was reached.
        refused: u64 = "hotring_rate_limited_total", One;
        /// Requests that counted for the limit and were carried out; of one on keys that begin alike, keys.
        requests: u64 = "hotring_rate_limit_requests_total", One;
        /// Bytes of these requests.
        bytes: u64 = "hotring_rate_limit_request_bytes_total", Bytes;
        /// Bytes of the replies that counted for the limit; 0 for one on keys that begin alike.
        reply_bytes: u64 = "hotring_rate_limit_reply_bytes_total", Bytes;
        /// Requests a second that the limit lets through; 0 is no bound.
        most_requests: Setting = "hotring_rate_limit_max_requests", One;
        /// Bytes of requests a second that the limit lets through; 0 is no bound.
        most_bytes: Setting = "hotring_rate_limit_max_request_bytes", Bytes;
        /// Bytes of replies a second that the limit lets through; 0 is no bound.
        most_reply_bytes: Setting = "hotring_rate_limit_max_reply_bytes", Bytes;
    }

    /// What the users of a pool have.
    UserCounts UserMetrics ["pool", "user"] {
        /// Open connections of the user, over all workers; not counted is a `default` that may do everything.
        connections: Setting = "hotring_user_connections", One;
        /// Connections that the user may have (`connections`); 0 is no bound.
        most: Setting = "hotring_user_max_connections", One;
    }

    /// What is known of a file with certificates.
    CertificateCounts CertificateMetrics ["pool", "file"] {
        /// When the first of the file's certificates expires, as a Unix time.
        expires: Setting = "hotring_tls_certificate_expires_timestamp_seconds", Seconds;
    }

    /// What is known of a pool's topology, where that is not the file's.
    TopologyCounts TopologyMetrics ["pool"] {
        /// Answers to the question which servers the pool has.
        refreshes: u64 = "hotring_topology_refreshes_total", One;
        /// Times that nobody answered it.
        errors: u64 = "hotring_topology_errors_total", One;
        /// Answers that were other than the one before.
        changes: u64 = "hotring_topology_changes_total", One;
        /// How old the last answer is; 0 if there was none.
        age: Setting = "hotring_topology_age_seconds", Seconds;
        /// 1 while nobody has answered yet, so that requests are refused.
        unknown: Setting = "hotring_topology_unknown", One;
    }

    /// What an embedded node holds and did.
    EmbeddedCounts EmbeddedMetrics ["pool", "backend"] {
        /// Keys in the embedded node.
        keys: Level = "hotring_embedded_keys", One;
        /// Memory the embedded node accounts for its keys and values.
        bytes: Level = "hotring_embedded_bytes", Bytes;
        /// Look-ups that found their key.
        hits: u64 = "hotring_embedded_hits_total", One;
        /// Look-ups that did not find their key.
        misses: u64 = "hotring_embedded_misses_total", One;
        /// Keys removed to make room.
        evictions: u64 = "hotring_embedded_evictions_total", One;
        /// Keys removed because their time was over.
        expired: u64 = "hotring_embedded_expired_total", One;
    }

    /// How a worker thread spends its passes.
    WorkerCounts WorkerMetrics ["worker"] {
        /// Requests this worker read.
        requests: u64 = "hotring_worker_requests_total", One;
        /// Passes that ended in a flush; requests by passes is the batch size.
        passes: u64 = "hotring_worker_passes_total", One;
        /// Time slept after flushes to let batches grow.
        paused: u64 = "hotring_worker_paused_seconds_total", Seconds;
        /// Bytes that apps and shards make this worker hold; over all workers they are bounded by `max_memory`.
        memory: Level = "hotring_worker_memory_bytes", Bytes;
        /// The pause after a flush that the worker has settled on now.
        pause: Level = "hotring_worker_pause_seconds", Seconds;
        /// How long passes took, from reading the first request or reply to having sent all that came of it; nobody is served meanwhile.
        pass_duration: Buckets<false> = "hotring_worker_pass_duration_seconds", Seconds;
        /// Mistakes of hotring's own that cost a session, a connection to a shard or a request; the log has each. Please report them.
        panics: u64 = "hotring_panics_total", One;
    }

    /// What the process has once.
    ProcessCounts ProcessMetrics [] {
        /// When the process started, as a Unix time.
        start_time: Setting = "hotring_start_time_seconds", Seconds;
        /// Worker threads.
        workers: Setting = "hotring_workers", One;
        /// What all workers may hold together (`max_memory`); 0 is no bound.
        memory_limit: Setting = "hotring_memory_limit_bytes", Bytes;
        /// When the running config was loaded, as a Unix time.
        config_loaded: Setting = "hotring_config_loaded_timestamp_seconds", Seconds;
        /// Configurations that were read while running.
        reloads: Per<Reloaded, u64, { Reloaded::COUNT }> = "hotring_config_reloads_total", One;
        /// Lines that were left out of the audit log, since there were too many.
        audit_suppressed: u64 = "hotring_audit_suppressed_total", One;
        /// Lines of the log that nobody will read: standard error took them too slowly, or not at all.
        log_dropped: u64 = "hotring_log_dropped_total", One;
        /// 1 while the newest configuration is one that was not taken, so that an older one runs.
        config_refused: Setting = "hotring_config_refused", One;
        /// Requests over the admin listener to change something, and reads that were refused for the token (`admin_token_for`), by what became of them.
        admin_actions: Per<AdminAction, u64, { AdminAction::COUNT }> = "hotring_admin_actions_total", One;
        /// A number below 2^48 made from the running config: instances with the same config show the same one.
        config_hash: Setting = "hotring_config_hash", One;
        /// Sampled requests whose spans a collector has taken (`tracing`).
        traces_exported: u64 = "hotring_traces_exported_total", One;
        /// Sampled requests whose spans nobody got, by why.
        traces_dropped: Per<TraceDropped, u64, { TraceDropped::COUNT }> = "hotring_traces_dropped_total", One;
        /// Attempts to send a batch of spans that came to nothing.
        trace_failures: u64 = "hotring_trace_export_failures_total", One;
        /// Sampled requests that wait for a batch of spans, 2048 at the most.
        traces_waiting: Setting = "hotring_traces_waiting", One;
        /// Lines of `access_log` that were written.
        access_lines: u64 = "hotring_access_log_lines_total", One;
        /// Lines of `access_log` that were not, because they could not be written, or came faster than they were.
        access_dropped: u64 = "hotring_access_log_dropped_total", One;
        /// Sampled requests that wait for their line, 2048 at the most.
        access_waiting: Setting = "hotring_access_log_waiting", One;
        /// CPU time that the process has used, in user and system mode.
        cpu: u64 = "process_cpu_seconds_total", Seconds;
        /// Resident memory.
        resident: Told = "process_resident_memory_bytes", Bytes;
        /// Open file descriptors.
        open_fds: Told = "process_open_fds", One;
        /// File descriptors that may be open.
        max_fds: Told = "process_max_fds", One;
        /// When the process started, as a Unix time; the name that Prometheus' own clients use.
        process_start: Setting = "process_start_time_seconds", Seconds;
    }

    /// Which hotring this is.
    BuildCounts BuildMetrics ["version"] {
        /// Always 1; the label has the version.
        info: Setting = "hotring_build_info", One;
    }
}

label! {
    /// Kinds of request whose latencies have different reasons.
    Class "class" {
        /// Forwarded as it is, reads.
        Read = "read",
        /// Forwarded as it is, writes.
        Write = "write",
        /// A command that is split by shard, as slow as the slowest of them.
        Multi = "multi",
        /// Scripts and functions.
        Script = "script",
        /// Answered by hotring itself.
        Local = "local",
        /// Refused, or unknown.
        Refused = "refused",
    }
}

label! {
    /// Why nobody got the spans of a sampled request.
    TraceDropped "why" {
        /// Too many were sampled at once for a worker.
        Worker = "worker",
        /// Too many waited for the collector.
        Queue = "queue",
        /// The collector did not take them, however often they were sent.
        Failed = "failed",
        /// The collector does not want them.
        Refused = "refused",
        /// Tracing was turned off while they waited.
        Off = "off",
    }
}

label! {
    /// What became of a configuration that was read while running.
    Reloaded "result" {
        /// It runs.
        Taken = "taken",
        /// Something is wrong with it; the one before still runs.
        Refused = "refused",
    }
}

label! {
    /// What became of a request over the admin listener to change something.
    AdminAction "outcome" {
        /// It showed the token.
        Allowed = "allowed",
        /// There is no token in the configuration.
        NoToken = "no_token",
        /// It showed none, or a wrong one.
        WrongToken = "wrong_token",
        /// A page in a browser made it.
        Browser = "browser",
        /// It called the listener by a name that is not one of its own.
        NoName = "no_name",
    }
}

label! {
    /// What a server is to others.
    Role "role" {
        /// It takes writes.
        Primary = "primary",
        /// It follows a primary.
        Replica = "replica",
    }
}

label! {
    /// What a server writes to disk.
    Written "file" {
        /// A snapshot of all.
        Rdb = "rdb",
        /// Each write as it comes.
        Aof = "aof",
    }
}

label! {
    /// Why an app got an error reply from hotring.
    Cause "cause" {
        /// No command of that name.
        UnknownCommand = "unknown_command",
        /// Too few or too many arguments, or arguments whose keys cannot be found.
        Syntax = "syntax",
        /// Bytes that are no request; the connection ends.
        Protocol = "protocol",
        /// One command's keys live on several shards and its result cannot be put together exactly.
        CrossShard = "cross_shard",
        /// A command that hotring does not carry (yet); the text says why.
        Unsupported = "unsupported",
        /// The app has not sent AUTH, or sent the wrong password.
        Auth = "auth",
        /// The app's user may not run the command, or not on these keys or channels; or nobody may (`deny_commands`).
        Denied = "denied",
        /// The pool is `read_only`, and the command may write. Nothing was sent.
        ReadOnly = "read_only",
        /// A key or a value above `max_key` or `max_value`. Nothing was sent.
        TooLong = "too_long",
        /// Above one of the pool's `rate_limits`. Nothing was sent.
        RateLimited = "rate_limited",
        /// The key is not there, and its `miss_budget` lets no more be told so.
        MissBudget = "miss_budget",
        /// Above `client_connections`; the connection ends.
        MaxClients = "max_clients",
        /// The memory budget is used up. Nothing was sent.
        Memory = "memory",
        /// The shard is down: its connection is lost or refused, and is being tried again. Nothing was sent.
        ShardDown = "shard_down",
        /// No shard is left in the ring: all are ejected, or nobody has told yet which there are. Nothing was sent.
        NoShard = "no_shard",
        /// No node of the cluster serves the key's slot, as far as is known. Nothing was sent.
        NoSlot = "no_slot",
        /// The key's slot moved from one node to another, and they did not agree in time. Nothing was done.
        Moving = "moving",
        /// The connection to the shard could not be opened while the request waited for it. Nothing was sent.
        Connect = "connect",
        /// The shard did not answer within `timeout`.
        Timeout = "timeout",
        /// The connection to the shard broke before the answer came.
        Lost = "lost",
        /// The shard sent something that is no reply, or a reply nobody asked for.
        Garbage = "garbage",
        /// All connections that sessions may have for themselves are in use.
        Exhausted = "exhausted",
        /// A fault was injected on purpose. Nothing was sent.
        Injected = "injected",
    }
}

label! {
    /// How a backend does.
    #[derive(Default)]
    ServerState "state" {
        /// Nothing is known against it.
        #[default]
        Up = "up",
        /// It failed, not often enough to be ejected.
        Suspect = "suspect",
        /// Its keys get what `when_ejected` says.
        Ejected = "ejected",
        /// So they do, but the next probe that it answers brings it back.
        HalfOpen = "half_open",
    }
}

label! {
    /// How long an answer that was compared with its backend stayed wrong.
    Stale "age" {
        /// Right again, or not given any more, 10 ms later.
        Within10ms = "10ms",
        /// From 10 to 100 ms.
        Within100ms = "100ms",
        /// From 100 ms to a second.
        Within1s = "1s",
        /// Longer.
        Longer = "longer",
    }
}

label! {
    /// Why a node of a cluster did not carry out a request.
    Redirected "why" {
        /// Its key's slot is another node's.
        Moved = "moved",
        /// Its key's slot is moving, and the key is not at the old node any more.
        Ask = "ask",
        /// Its keys' slot is moving, and some of them are there and some here.
        TryAgain = "tryagain",
        /// The cluster does not serve its key's slot at the moment.
        ClusterDown = "clusterdown",
    }
}

label! {
    /// Why no copy of a request was sent to the mirror.
    Dropped "why" {
        /// So much as may be was on its way to the mirror, or waited to be.
        Full = "full",
        /// The server of its key in the mirror is down, or nobody knows which it is.
        Down = "down",
        /// Its keys live on several servers of the mirror.
        CrossShard = "cross_shard",
        /// The slot of its key in the mirror is moving.
        Moving = "moving",
    }
}

label! {
    /// Why a request is never mirrored.
    Skipped "why" {
        /// It is within a transaction.
        Transaction = "transaction",
        /// It may block.
        Blocking = "blocking",
        /// It is so long that it is passed on while it arrives.
        Long = "long",
        /// Some of its keys are mirrored and others are not, and it cannot be split.
        Partial = "partial",
        /// It is for another database than the first.
        Database = "database",
    }
}

label! {
    /// What was done to a request on purpose.
    Injected "why" {
        /// It, or its reply, was held back.
        Delay = "delay",
        /// Its reply was to be held back, and too much was already.
        Undelayed = "undelayed",
        /// It was answered with an error.
        Error = "error",
        /// Its app's connection was closed.
        Drop = "drop",
    }
}

label! {
    /// What came of a comparison.
    Compared "result" {
        /// Both said the same.
        Equal = "equal",
        /// They did not; a write may have come between the two.
        Different = "different",
        /// Nothing can be said: one of them was an error, came too late or not at all, or too much was being compared already.
        Unknown = "unknown",
    }
}

label! {
    /// What was full when a session was paused.
    Full "full" {
        /// The session's window: too many requests without a reply, or too many bytes of replies that it has not read.
        Window = "window",
        /// A backend's outbox.
        Outbox = "outbox",
        /// Most of the memory budget, of which the session held more than its share.
        Memory = "memory",
    }
}

label! {
    /// Why a TLS handshake did not come about.
    TlsFailure "why" {
        /// It took too long.
        Timeout = "timeout",
        /// The other side closed the connection.
        Closed = "closed",
        /// What came is no TLS, such as plain requests.
        NotTls = "not_tls",
        /// No version of TLS, or no cipher, that both sides know.
        NothingInCommon = "nothing_in_common",
        /// The other side shows no certificate, and must.
        NoCertificate = "no_certificate",
        /// Its certificate has expired, or is not valid yet.
        Expired = "expired",
        /// Its certificate was issued by nobody who is believed.
        UnknownIssuer = "unknown_issuer",
        /// Its certificate is for another host.
        WrongName = "wrong_name",
        /// Its certificate cannot be used for another reason.
        BadCertificate = "bad_certificate",
        /// The other side refused, and said so.
        Refused = "refused",
        /// Anything else.
        Protocol = "protocol",
    }
}

label! {
    /// Why hotring closed an app's connection.
    Closed "why" {
        /// The memory budget was used up, and this session held most.
        Memory = "memory",
        /// It did not read its replies for too long.
        Unread = "unread",
        /// It asked for nothing for too long.
        Idle = "idle",
        /// It did not go on with a request for too long.
        HalfSent = "half_sent",
        /// It did not send a password in time.
        NoAuth = "no_auth",
        /// It sent too many wrong passwords.
        WrongPasswords = "wrong_passwords",
    }
}
