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
    activations: "activations",
    pools_started: "pools started whole",
    members_restarted: "members of a pool restarted while others ran",
    trigger_limited: "trigger limits reached",
    accept_limited: "accept rates reached",
    full: "times when all connections were taken",
    refused_full: "connections refused for want of room",
    refused_source: "connections refused because of their source",
    accepted: "connections accepted",
    exhausted: "accepts that found no descriptor",
    gone: "accepts that found nobody",
    vanished: "clients that vanished",
    held: "connections held because of a failed launch",
    held_again: "held connections started",
    timed_out: "connections that took too long",
    killed_late: "processes killed after their stop timeout",
    looked_same: "workers that took none of their clients",
    looked_others: "workers whose clients were others",
    looked_nobody: "workers that took all their clients",
    rests: "ends that left others of the process group",
    failed: "workers that crashed too often",
    cooled_down: "workers tried again after a cool-down",
    exit_first: "exits before the news of the exec",
    storms: "storms in a stopped time",
    drained: "lives in which everybody was served",
    waited: "clients that waited when all was to calm down",
    stop_accepting: "stops with an accept under way",
    stop_starting: "stops with a connection on its way to its program",
    stop_held: "stops with a connection held",
    stop_serving: "stops with a connection being served",
    stop_lazy: "stops with effects not taken",
    hurried: "stops that were hurried",
    shared: "lives with a listener that two workers take",
    nonsense: "inputs that made no sense",
}
