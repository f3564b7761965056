//! What people ask for one instance: start, stop, restart, signal, reset, reload.
//!
//! An instance that was stopped stays so until it is started, or its worker is: started, restarted, or
//! replaced by another definition. A restart is a rollout of that instance alone, with the order, the times
//! and the way back of any other; those of several instances go on as one rollout. Whether a worker is
//! stopped, which definition it has and how many instances there are is a matter of the worker as a whole.

use super::ctx::Ctx;
use super::job::{Goal, Waiter};
use super::run::Run;
use super::types::{Answer, Command, Phase, Refused, RunId, Ticket};
use super::worker::Worker;
use crate::plan::Activation;

impl Worker {
    pub(super) fn operate_on(
        &mut self,
        ctx: &mut Ctx,
        ticket: Ticket,
        index: u32,
        command: Command,
    ) {
        if let Err(why) = self.try_to_operate_on(ctx, ticket, index, command) {
            ctx.answer(ticket, Answer::Refused(why));
        }
        self.announce(ctx, ticket);
    }

    fn try_to_operate_on(
        &mut self,
        ctx: &mut Ctx,
        ticket: Ticket,
        index: u32,
        command: Command,
    ) -> Result<(), Refused> {
        if self.removed {
            return Err(Refused::NoSuchWorker);
        }
        if ctx.phase != Phase::Running {
            return Err(Refused::NotRunning);
        }
        if let Activation::PerConnection(_) = self.lifecycle.activation {
            return Err(Refused::NoInstances);
        }
        let id = self.runs.at(index).ok_or(Refused::NoSuchInstance)?;
        let is_it = |run: &Run| run.instance.index == index;
        match command {
            Command::Scale(_) | Command::Follow => return Err(Refused::NoSuchInstance),
            Command::Signal(number) => return self.signal_runs(ctx, ticket, number, is_it),
            Command::Reload => return self.reload_runs(ctx, ticket, is_it),
            Command::Start | Command::Restart if self.stopped => {
                return Err(Refused::WorkerStopped);
            }
            Command::Restart if self.is_rolling() => return self.join_restart(ctx, ticket, index),
            Command::Start | Command::Stop | Command::Reset if self.is_rolling() => {
                return Err(Refused::Busy);
            }
            Command::Start | Command::Stop | Command::Restart | Command::Reset => {}
        }
        let waits = self.is_eager() && ctx.listeners.lacks(self.id);
        match command {
            Command::Start | Command::Restart if waits => return Err(Refused::WaitsForListener),
            Command::Restart if self.runs[id].state.is_busy() => {
                self.supersede_for(ctx, id);
                let of = self.roll_out(ctx, Some(ticket), None, Some(index));
                ctx.answer(ticket, Answer::Progress { done: 0, of });
            }
            Command::Stop => self.stop_one(ctx, ticket, id),
            Command::Reset => {
                self.reset_instance(ctx, id);
                ctx.take_clients_again(self.id);
                ctx.answer(ticket, Answer::Done);
            }
            _ => self.start_one(ctx, ticket, id),
        }
        Ok(())
    }

    /// One more instance is to be restarted while others are. While that is a rollout to another definition,
    /// or one goes back, this is not the time.
    fn join_restart(&mut self, ctx: &mut Ctx, ticket: Ticket, index: u32) -> Result<(), Refused> {
        let revision = self.revision;
        let rollout = self.rollout.as_mut().ok_or(Refused::Busy)?;
        let is_in_step = rollout.steps.iter().any(|step| step.position == index);
        // What it has replaced has its generation already.
        let is_begun = is_in_step || rollout.replaced.contains(&index);
        if rollout.back.is_some() || rollout.from.revision != revision || is_begun {
            return Err(Refused::Busy);
        }
        if !rollout.todo.contains(&index) {
            rollout.todo.push_back(index);
            rollout.of = rollout.of.saturating_add(1);
        }
        rollout.tickets.push(ticket);
        let (done, of) = (rollout.done, rollout.of);
        ctx.stir(self.id);
        ctx.answer(ticket, Answer::Progress { done, of });
        Ok(())
    }

    fn start_one(&mut self, ctx: &mut Ctx, ticket: Ticket, id: RunId) {
        ctx.stir(self.id);
        ctx.take_clients_again(self.id);
        // What clients start joins the others if these run.
        let at_once = self.is_eager() || self.instances_with_process() > 0;
        let is_wanted = self.start_instance(ctx, id, at_once);
        let wanted = is_wanted.then_some(id).into_iter().collect();
        self.begin(ctx, Waiter::Asked(ticket), Goal::Up, wanted);
    }

    fn stop_one(&mut self, ctx: &mut Ctx, ticket: Ticket, id: RunId) {
        self.supersede_for(ctx, id);
        self.end_watch(ctx);
        ctx.take_clients_again(self.id);
        self.comes_back(id, false);
        let is_busy = self.runs[id].state.is_busy();
        self.stop_instance(ctx, id);
        let live = is_busy.then_some(id).into_iter().collect();
        self.begin(ctx, Waiter::Asked(ticket), Goal::Down, live);
    }

    /// Another command is there for an instance: whoever waits for it is told so.
    fn supersede_for(&mut self, ctx: &mut Ctx, id: RunId) {
        let mut told = Vec::new();
        self.jobs.retain(|job| {
            let waits = job.pending.contains(&id);
            told.extend(waits.then_some(job.waiter));
            !waits
        });
        for waiter in told {
            match waiter {
                Waiter::Asked(ticket) => ctx.answer(ticket, Answer::Refused(Refused::Superseded)),
                Waiter::Reload => ctx.replanned(self.id, None),
            }
        }
    }
}
