//! A rollout as data; what moves it is in [`super::rolling`].

use super::picture::{Drawn, Picture};
use super::time::Mono;
use super::types::{Bad, Degraded, InstanceId, Revision, RunId, Ticket};
use crate::plan::Lifecycle;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a worker runs by, and as which generation.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    pub(super) revision: Revision,
    pub(super) life: Arc<Lifecycle>,
    pub(super) generation: u32,
}

/// What a rollout replaces the instances by.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) revision: Revision,
    pub(super) life: Arc<Lifecycle>,
    /// What is replaced can still be started when the rollout is over.
    pub(super) can_go_back: bool,
}

/// A rollout under way, or being watched.
#[derive(Debug, Clone)]
pub(super) struct Rollout {
    /// The requests that wait for the rollout.
    pub(super) tickets: Vec<Ticket>,
    /// The definition that a rollback restores.
    pub(super) from: Definition,
    /// Whether a rollback is still possible after the rollout.
    pub(super) can_go_back: bool,
    /// The generation of the first that it has started; later ones have higher numbers.
    pub(super) generation: u32,
    /// Whether it goes back.
    pub(super) back: Option<Degraded>,
    /// One that was promoted has crashed.
    pub(super) crashed: Option<InstanceId>,
    /// Every instance was replaced, and is watched until then.
    pub(super) watched: Option<Mono>,
    /// The instances that are still to be replaced.
    pub(super) todo: VecDeque<u32>,
    pub(super) steps: Vec<Step>,
    /// The instances that have been replaced.
    pub(super) replaced: Vec<u32>,
    pub(super) done: u32,
    pub(super) of: u32,
}

/// One instance being replaced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// The index of the instance.
    pub(super) position: u32,
    /// The run of the new one.
    pub(super) new: RunId,
    /// The run of the old one, if it has another.
    pub(super) old: Option<RunId>,
    pub(super) at: At,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// The old one is stopping; the new one follows in its place.
    MakingRoom,
    /// The new one is on its way.
    Starting,
    /// The new one is ready, and relied on from then on.
    Settling(Mono),
    /// The new one has taken the place, and the old one drains.
    Draining,
}

impl Rollout {
    /// Whether this is new and not relied on yet. On the way back nothing is.
    pub(super) fn tries(&self, id: RunId) -> bool {
        let is_tried = |step: &Step| step.new == id && step.at.is_before_promotion();
        self.back.is_none() && self.steps.iter().any(is_tried)
    }

    /// What whoever waits for it is told of a rollout that goes back.
    pub(super) fn bad(&self) -> Option<Bad> {
        self.back.map(|bad| Bad::WentBack(bad.instance))
    }

    /// What is gone back to lives on the new terms, too, if it is the same definition.
    pub(super) fn settings_changed(&mut self, revision: Revision, life: &Arc<Lifecycle>) {
        if self.from.revision == revision {
            self.from.life = Arc::clone(life);
        }
    }
}

impl Step {
    pub(super) fn reach(&mut self, drawn: &mut Drawn, at: At) {
        drawn.hold(self.at.stage(), at.stage());
        self.at = at;
    }
}

impl At {
    /// Whether the new one runs or is on its way, and has not taken the place of the old one.
    pub(super) fn is_before_promotion(self) -> bool {
        match self {
            At::Starting | At::Settling(_) => true,
            At::MakingRoom | At::Draining => false,
        }
    }
}

/// Where a rollout is.
///
/// ```text
///  Forward ── every instance is replaced ──▶ Watched ── the time is over ──▶ Over
///     │  └──── and nothing is to be watched ────│──────────────────────────▶ Over
///     │ a new one has ended                     │ one has crashed
///     ▼                                         ▼
///    Back ── what was replaced is replaced again ─────────────────────────▶ Over
///
///  Another rollout, or a stop of the worker, ends it wherever it is.
/// ```
///
/// In full:
///
/// ```text
/// Forward    → Watched, Back, Over
/// Watched    → Back, Over
/// Back       → Over
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// Instances are being replaced.
    Forward,
    /// All are, and a crash still fails it.
    Watched,
    /// What was replaced is being replaced again.
    Back,
    /// There is none any more.
    Over,
}

/// Where one instance of it is: [`At`], and how that ends.
///
/// ```text
///  stop-first                       start-first
///      │                                │
///      ▼                                ▼
///  MakingRoom ── the old has ended ─▶ Starting ◀── not ready any more ──┐
///                                       │ ready                         │
///                                       ▼                               │
///                                    Settling ──────────────────────────┘
///                                       │ ready for `min_ready`
///                                       ▼
///                                    Draining ── the old has ended ──▶ Done
///
///  Starting, Settling ── ended ──▶ Failed: the rollout goes back. On the way back, where nothing
///  settles, it is Done.
///  What is not Done when a rollout goes back, or another takes over, is GivenUp.
/// ```
///
/// In full:
///
/// ```text
/// MakingRoom → Starting, GivenUp
/// Starting   → Settling, Done, Failed, GivenUp
/// Settling   → Starting, Draining, Failed, GivenUp
/// Draining   → Done, GivenUp
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepStage {
    MakingRoom,
    Starting,
    Settling,
    Draining,
    Done,
    Failed,
    GivenUp,
}

impl Rollout {
    pub(super) fn course(&self) -> Course {
        match (self.back, self.watched) {
            (Some(_), _) => Course::Back,
            (None, Some(_)) => Course::Watched,
            (None, None) => Course::Forward,
        }
    }
}

impl At {
    pub(super) fn stage(self) -> StepStage {
        match self {
            At::MakingRoom => StepStage::MakingRoom,
            At::Starting => StepStage::Starting,
            At::Settling(_) => StepStage::Settling,
            At::Draining => StepStage::Draining,
        }
    }
}

impl Picture for Course {
    const NAME: &'static str = "Course";

    fn next(self) -> &'static [Course] {
        match self {
            Course::Forward => &[Course::Watched, Course::Back, Course::Over],
            Course::Watched => &[Course::Back, Course::Over],
            Course::Back => &[Course::Over],
            Course::Over => &[],
        }
    }
}

impl Picture for StepStage {
    const NAME: &'static str = "StepStage";

    fn next(self) -> &'static [StepStage] {
        match self {
            StepStage::MakingRoom => &[StepStage::Starting, StepStage::GivenUp],
            StepStage::Starting => &[
                StepStage::Settling,
                StepStage::Done,
                StepStage::Failed,
                StepStage::GivenUp,
            ],
            StepStage::Settling => &[
                StepStage::Starting,
                StepStage::Draining,
                StepStage::Failed,
                StepStage::GivenUp,
            ],
            StepStage::Draining => &[StepStage::Done, StepStage::GivenUp],
            StepStage::Done => &[],
            StepStage::Failed => &[],
            StepStage::GivenUp => &[],
        }
    }
}
