//! How often the interesting things happened.

macro_rules! seen {
    ($($name:ident: $what:literal,)*) => {
        /// How often the interesting things happened.
        #[derive(Debug, Default)]
        pub(crate) struct Seen {
            $(pub(crate) $name: u64,)*
        }

        impl Seen {
            pub(crate) fn add(&mut self, other: &Seen) {
                $(self.$name += other.$name;)*
            }

            pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$(($what, self.$name),)*]
            }
        }
    };
}

seen! {
    ready: "instances that became ready later than they started",
    start_timed_out: "instances that were not ready in time",
    watchdog: "instances that gave no sign of life",
    stop_timed_out: "instances killed after their stop timeout",
    rests: "ends that left others of the process group",
    hook_failed: "hooks that failed",
    hook_ended: "hooks that ended with their instance",
    cleaned: "starts that were cleaned up after without a program",
    hook_timed_out: "hooks that took too long",
    hidden: "instances whose readiness cannot be seen",
    rollouts: "rollouts",
    rolled_out: "rollouts that went well",
    rolled_back: "rollouts that went back",
    crashed_later: "rollbacks for what had been promoted",
    watched: "rollbacks after the rollout was over",
    tried_again: "rollouts to what had been given up",
    back_again: "rollbacks in which instances had to be replaced again",
    recovered: "workers that were degraded and are not any more",
    promoted: "old instances stopped for a successor",
    superseded: "requests that another took the place of",
    refused: "requests that were refused",
    failed: "instances that crashed too often",
    refusing: "listeners closed because their workers have failed",
    bound_again: "listeners bound again",
    refreshed: "instances restarted for a listener",
    reloaded: "instances reloaded in place",
    replans: "reloads",
    replans_at_once: "reloads while another was under way",
    activation_changed: "workers that got another kind of activation",
    removed: "workers removed with a process running",
    gone: "workers of which nothing is left",
    retired: "times that definitions were retired",
    activated: "workers started by a client",
    connections: "connections with a process",
    stop_rolling: "stops with a rollout under way",
    stop_hooks: "stops with a hook running",
    stop_lazy: "stops with effects not taken",
    hurried: "stops that were hurried",
    rested: "lives that came to rest",
    up: "times when everything was up",
}
