//! Going on where the listend before was.
//!
//! The order: the plans get the numbers that they had; sockets are found by what the kernel calls them;
//! the core is thawed; then each process is looked for, and what became of it meanwhile is told to the core
//! before `Input::Resumed`, with which everything goes on.

use super::facts;
use super::readopt::{Left, Started};
use super::{Past, RAISE, Store, UNREAD};
use crate::core::{Core, FormerTaker, Known, Revision, WhenDone};
use crate::listener::{self, Adopted, BindError, BoundSocket, Former, Purpose, SocketTable};
use crate::plan::{ListenerId, ListenerPlan, Plan, SocketKey, SocketPlan, WorkerId, WorkerPlan};
use crate::shell::clock;
use crate::shell::control::Control;
use crate::shell::definitions::{Definition, Definitions, listener_lives};
use crate::shell::folders::Folders;
use crate::shell::manager::{Manager, ReadyWhen};
use crate::shell::signals::Signals;
use crate::shell::turn::Shell;
use crate::store::{Holder, Identity, Keeper, Kept, Name, not_taken};
use crate::sys;
use crate::worker::DaemonContext;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A listend that can go on.
pub struct Resumed {
    pub(super) shell: Shell,
    /// What could not be bound of what the configuration has.
    pub(super) missing: Vec<BindError>,
    /// The listeners that were bound, and are not.
    pub(super) unheld: BTreeSet<ListenerId>,
    /// The workers whose instances have lost something, and what: a rollout replaces them.
    pub(super) to_replace: BTreeMap<WorkerId, &'static str>,
    /// Where workers send notifications, if nobody has that socket any more, and which workers do.
    pub(super) notify: Option<(String, BTreeSet<WorkerId>)>,
    /// Where workers of einhorn say that they are up, if nobody has that socket any more.
    pub(super) acks: Option<String>,
}

impl Resumed {
    /// Supervises from now on.
    ///
    /// # Errors
    ///
    /// As for [`Shell::run`].
    pub fn run(
        self,
        control: Control,
        mut manager: Manager,
        ready_when: ReadyWhen,
    ) -> io::Result<u8> {
        // The last sign of life may be as old as it can be.
        manager.alive(clock::now());
        let Resumed {
            shell,
            missing,
            unheld,
            mut to_replace,
            notify,
            acks,
        } = self;
        let shell = shell.with_control(control);
        let mut shell = shell.with_manager(manager, ready_when);
        shell.goes_on_without(unheld);
        if let Some((address, workers)) = notify
            && let Err(why) = shell.notify_socket_again(&address)
        {
            log::warn!("cannot receive what workers send to {address}: {why}");
            let reason = "what it notifies is not received";
            to_replace.extend(workers.into_iter().map(|worker| (worker, reason)));
        }
        if let Some(address) = acks {
            shell.ack_socket_again(&address);
        }
        shell.run_on(&missing, &to_replace)
    }

    /// Has descriptors and facts kept, if there is a keeper.
    #[must_use]
    pub fn with_keeper(
        self,
        keeper: Option<Keeper>,
        kept: impl IntoIterator<Item = (u32, SocketKey, Identity)>,
    ) -> Resumed {
        Resumed {
            shell: self.shell.with_keeper(keeper, kept),
            ..self
        }
    }
}

impl Shell {
    /// Goes on where the listend before was, with what [`Past::thaw`] has made of it.
    ///
    /// # Errors
    ///
    /// As for [`Shell::new`].
    pub fn resume(
        mut past: Past,
        thawed: Thawed,
        given: (Signals, DaemonContext),
        keeper: Option<Keeper>,
    ) -> io::Result<Resumed> {
        let Thawed {
            plans,
            plan,
            core,
            definitions,
        } = thawed;
        let (mut left, mut fds) = (Left::new(), HashMap::<Name, Vec<OwnedFd>>::new());
        let known: BTreeSet<String> = past.held().map(str::to_owned).collect();
        let taken = past.taken.iter().cloned();
        let mut named: Vec<_> = taken.chain([(Name::Snapshot, None)]).collect();
        for Kept { name, fd } in std::mem::take(&mut past.fds) {
            let identity = Identity::of(&fd);
            match (name, identity) {
                (Name::Sockets(_), Some(identity)) => {
                    let is_known = known.contains(&identity.to_string());
                    named.push((name, is_known.then(|| identity.clone())));
                    left.insert(identity, fd);
                }
                (name, identity) => {
                    named.push((name, identity));
                    fds.entry(name).or_default().push(fd);
                }
            }
        }
        let untaken = past.take_missing(&mut left);
        let (sockets, missing) = past.bind(&plan, &plans, &mut left);
        let unheld: BTreeSet<ListenerId> = missing.iter().map(|error| error.listener).collect();
        tell_unheld(&unheld, &plan, untaken.as_deref());
        let shell = Shell::with_core(plan, sockets, given, core, definitions)?;
        let store = Store::continued(keeper, past.journal, named);
        let mut shell = shell.with_store(store);
        shell.store.unknown = past.unknown;
        shell.store.unknown_fields = past.unknown_fields;
        let known = plans.iter();
        shell.store.configurations = known
            .map(|(key, plan)| (*key, Arc::clone(&plan.origin)))
            .collect();
        shell.store.requests = past.requests;
        shell.folders = Folders::again(past.folders);
        let lost = past.sockets.into_iter();
        let lost = lost.filter(|one| one.former.is_none());
        shell.store.unheld = lost
            .filter(|one| unheld.contains(&ListenerId(one.listener)))
            .collect();
        shell.recall(past.history);
        let notify = past.head.notify.as_ref().map(|one| one.address.clone());
        let lost_notify = notify.filter(|_| !fds.contains_key(&Name::Notify));
        shell.readopt_notify_socket(&past.head, &mut fds);
        let acks = past.head.einhorn.as_ref().map(|one| one.address.clone());
        let lost_acks = acks.filter(|_| !fds.contains_key(&Name::Acks));
        shell.readopt_ack_socket(&past.head, &mut fds);
        shell.readopt_flows(past.flows, &mut fds, &mut left);
        let of = Started {
            connections: past.connections,
            stored: past.stored,
            processes: past.processes,
            half_lines: past.half_lines,
            by: past.head.pid,
        };
        let unread = shell.readopt(of, &mut fds).into_iter();
        let processes = shell.processes.iter();
        let heard = processes.filter(|(_, process)| process.access.is_some());
        let heard = heard.map(|(_, process)| process.instance.worker).collect();
        Ok(Resumed {
            shell,
            missing,
            unheld,
            to_replace: unread.map(|worker| (worker, UNREAD)).collect(),
            notify: lost_notify.map(|address| (address, heard)),
            acks: lost_acks,
        })
    }
}

/// What a snapshot comes to, before anything has changed.
pub struct Thawed {
    plans: BTreeMap<u32, Plan>,
    plan: Plan,
    core: Core,
    definitions: Definitions,
}

impl Past {
    /// What a listend could go on with from here. `plans` are resolved from [`Past::configurations`].
    ///
    /// # Errors
    ///
    /// Why there is nothing, in words.
    pub fn thaw(&self, plans: BTreeMap<u32, Plan>, when_done: WhenDone) -> Result<Thawed, String> {
        let plans = plans.into_iter();
        let plans: BTreeMap<u32, Plan> = plans
            .map(|(key, plan)| (key, plan.with_ids(&self.ids)))
            .collect();
        let plan = plans.get(&self.in_force()).cloned();
        let plan = plan.ok_or("the configuration in force is not known")?;
        let definitions = definitions(self, &plans)?;
        let known = Known {
            definitions: definitions.lifecycles(),
            listeners: listener_lives(&plan),
            former: former_takers(self),
            when_done,
        };
        let core = Core::thaw(&self.snapshot, known).map_err(|why| why.to_string())?;
        Ok(Thawed {
            plans,
            plan,
            core,
            definitions,
        })
    }
}

/// The definitions from which something may still be started.
fn definitions(past: &Past, plans: &BTreeMap<u32, Plan>) -> Result<Definitions, String> {
    let mut all = Vec::new();
    let workers: HashMap<(u32, &str), &Arc<WorkerPlan>> = plans
        .iter()
        .flat_map(|(key, plan)| {
            let workers = plan.workers.values();
            workers.map(|worker| ((*key, &*worker.name), worker))
        })
        .collect();
    for fact in &past.definitions {
        let plan = plans.get(&fact.configuration);
        let worker = workers.get(&(fact.configuration, &*fact.name));
        let (Some(plan), Some(worker)) = (plan, worker) else {
            let name = &fact.name;
            return Err(format!(
                "worker `{name}` is not in the configuration from which it was started"
            ));
        };
        let definition = Definition::restored(
            Arc::clone(worker),
            Arc::clone(&plan.origin),
            fact.sockets.clone(),
        );
        all.push(((WorkerId(fact.worker), Revision(fact.revision)), definition));
    }
    Ok(Definitions::restored(all))
}

/// Who has a listener of the configuration by a definition that was replaced.
fn former_takers(past: &Past) -> Vec<FormerTaker> {
    let held = past.sockets.iter().filter(|socket| socket.former.is_none());
    let listeners: HashMap<u32, ListenerId> = held
        .map(|socket| (socket.key, ListenerId(socket.listener)))
        .collect();
    let mut all = BTreeSet::new();
    for definition in &past.definitions {
        for (key, _, _) in definition.sockets.iter().flatten() {
            let of = (WorkerId(definition.worker), Revision(definition.revision));
            all.extend(listeners.get(key).map(|listener| (*listener, of.0, of.1)));
        }
    }
    all.into_iter().collect()
}

impl Past {
    /// Puts every socket back that was held: those that were kept as they are, the others by binding them
    /// anew. What the configuration has and was not held is left to the core, which knows that.
    fn bind(
        &self,
        plan: &Plan,
        plans: &BTreeMap<u32, Plan>,
        left: &mut Left,
    ) -> (SocketTable, Vec<BindError>) {
        let mut held: BTreeMap<ListenerId, Arc<ListenerPlan>> = BTreeMap::new();
        let mut adopted = Adopted::default();
        for fact in self.sockets.iter().filter(|fact| fact.former.is_none()) {
            let id = ListenerId(fact.listener);
            if let Some(listener) = plan.listeners.get(&id) {
                held.entry(id).or_insert_with(|| Arc::clone(listener));
            }
            let fd = left.remove(&Identity::read(&fact.identity));
            adopted.extend(fd.map(|fd| (SocketKey(fact.key), fd)));
        }
        let held = Plan::of_listeners(held);
        let outcome = listener::bind_all(&held, Purpose::Keep, adopted);
        let mut table = outcome.bound;
        for fact in &self.sockets {
            match &fact.former {
                None => {
                    // One that was bound anew has nothing of it.
                    let is_same = |socket: &&mut BoundSocket| socket.is_adopted;
                    if let Some(socket) = table.get_mut(SocketKey(fact.key)).filter(is_same) {
                        socket.restore(fact.record.clone());
                    }
                }
                Some(former) => {
                    let fd = left.remove(&Identity::read(&fact.identity));
                    let plan = plans.get(&former.configuration);
                    if let (Some(fd), Some(plan)) = (fd, plan) {
                        add_former(&mut table, fact, former, (fd, plan));
                    }
                }
            }
        }
        table.created_folders.clone_from(&self.head.folders);
        (table, outcome.errors)
    }
}

impl Past {
    /// What the kernel calls the sockets that were held: those of the table, and those apart from it.
    fn held(&self) -> impl Iterator<Item = &str> {
        let apart = self.flows.iter().flat_map(|fact| &fact.members);
        let apart = apart.filter_map(|member| member.identity.as_deref());
        let of_table = self.sockets.iter().map(|fact| &*fact.identity);
        of_table.chain(apart)
    }

    /// Takes the sockets that the keeper had no room for from the processes that have them as well; they are known
    /// by their cookies. Answers why that cannot be, if something is still missing.
    fn take_missing(&self, left: &mut Left) -> Option<String> {
        let all = self.held().map(Identity::read);
        let mut missing: HashSet<Identity> = all.filter(|one| !left.contains_key(one)).collect();
        let (before, mut why) = (missing.len(), None);
        for process in &self.processes {
            if missing.is_empty() {
                break;
            }
            let holder = match Holder::of(process.pid) {
                Ok(holder) => holder,
                Err(error) => {
                    let has_ended = sys::open_pidfd(process.pid).is_err();
                    if !has_ended {
                        why.get_or_insert_with(|| not_taken(process.pid, &error, "listend"));
                    }
                    continue;
                }
            };
            for inode in holder.sockets() {
                match holder.take(inode) {
                    Ok(Some(fd)) => {
                        if let Some(identity) = Identity::of(&fd)
                            && missing.remove(&identity)
                        {
                            left.insert(identity, fd);
                        }
                    }
                    Ok(None) => {}
                    Err(error) => {
                        why.get_or_insert_with(|| not_taken(process.pid, &error, "listend"));
                        break;
                    }
                }
            }
        }
        let taken = before - missing.len();
        if taken > 0 {
            log::warn!("sockets that were not kept, and were taken from the workers: {taken}");
        }
        why.filter(|_| !missing.is_empty())
    }
}

/// Says what becomes of listeners whose sockets only workers have.
fn tell_unheld(missing: &BTreeSet<ListenerId>, plan: &Plan, untaken: Option<&str>) {
    let untaken = untaken.map_or_else(String::new, |why| format!(" ({why})"));
    for id in missing {
        let workers = plan.workers.values();
        let takes = workers.filter(|worker| worker.listeners.contains(id));
        let takes: Vec<&str> = takes.map(|worker| worker.name.as_str()).collect();
        let takes = takes.join(" ");
        log::error!(
            "listener {}: its socket was not kept, and cannot be taken or bound again{untaken}. Workers that have \
             it go on to serve, but none can be started. It is bound again within 30 s after `listend stop {takes}`; \
             then use `listend start {takes}`. Its clients are refused meanwhile. {RAISE}",
            plan.listener(*id).name
        );
    }
}

/// A socket that the configuration has no more. Without its descriptor it is of no use to anybody.
fn add_former(
    table: &mut SocketTable,
    fact: &facts::Socket,
    former: &facts::Former,
    (fd, plan): (OwnedFd, &Plan),
) {
    let mut listeners = plan.listeners.values();
    let listener = listeners.find(|listener| listener.name == former.listener);
    let index = former.index as usize;
    let Some((listener, socket)) = listener.and_then(|one| Some((one, one.sockets.get(index)?)))
    else {
        return;
    };
    let key = SocketKey(fact.key);
    let mut alone = ListenerPlan {
        sockets: vec![SocketPlan {
            key,
            ..socket.clone()
        }],
        ..ListenerPlan::clone(listener)
    };
    alone.settings_mut().symlinks = fact.record.symlinks.clone();
    let id = ListenerId(fact.listener);
    let only = Plan::of_listeners(BTreeMap::from([(id, Arc::new(alone.clone()))]));
    let adopted = Adopted::from([(key, fd)]);
    let mut outcome = listener::bind_all(&only, Purpose::Keep, adopted);
    if let Some(mut socket) = outcome.bound.take(key) {
        socket.restore(fact.record.clone());
        let former = Former {
            listener: alone,
            origin: Arc::clone(&plan.origin),
            index,
        };
        table.add_former(socket, former);
    }
}
