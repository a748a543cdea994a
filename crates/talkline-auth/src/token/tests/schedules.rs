//! Random schedules: whatever the service, the clocks and the callers do, the rules hold.

use proptest::{collection::vec, prelude::*};

use super::*;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    /// Both clocks go on.
    Pass(Duration),
    /// The driver sleeps as long as it was told to.
    Sleep,
    /// The machine is suspended, or somebody sets the wall clock forward.
    WallForward(Duration),
    /// Somebody sets the wall clock back.
    WallBack(Duration),
    /// The attempt in flight, if there is one, ends with a token.
    Succeed {
        life: Duration,
        refresh_in: Option<Duration>,
        same_token: bool,
    },
    /// The attempt in flight, if there is one, fails.
    Fail {
        permanent: bool,
    },
    Demand,
    /// An upstream refuses the token in use.
    Reject,
}

fn event() -> impl Strategy<Value = Event> {
    let life = || {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (0u64..10_000).prop_map(Duration::from_millis),
            (0u64..200_000).prop_map(Duration::from_secs),
        ]
    };
    prop_oneof![
        3 => (0u64..60_000).prop_map(|ms| Event::Pass(Duration::from_millis(ms))),
        1 => (0u64..20_000).prop_map(|s| Event::Pass(Duration::from_secs(s))),
        6 => Just(Event::Sleep),
        1 => (0u64..100_000).prop_map(|s| Event::WallForward(Duration::from_secs(s))),
        1 => (0u64..100_000).prop_map(|s| Event::WallBack(Duration::from_secs(s))),
        5 => (life(), proptest::option::of(life()), any::<bool>())
            .prop_map(|(life, refresh_in, same_token)| Event::Succeed { life, refresh_in, same_token }),
        4 => any::<bool>().prop_map(|permanent| Event::Fail { permanent }),
        5 => Just(Event::Demand),
        2 => Just(Event::Reject),
    ]
}

/// The newest token as the service sees it.
#[derive(Clone, Copy)]
struct Truth {
    since: Moment,
    life: Duration,
}

impl Truth {
    fn age(self, now: Moment) -> Duration {
        let wall = now.wall.duration_since(self.since.wall);
        (now.monotonic - self.since.monotonic).max(wall.unwrap_or_default())
    }

    fn is_expired(self, now: Moment) -> bool {
        self.age(now) >= self.life
    }

    fn must_serve(self, now: Moment) -> bool {
        let margin = Duration::from_secs(60).min(self.life / 10);
        self.life >= Duration::from_secs(1) && self.age(now) + margin < self.life
    }
}

/// A driver that obeys, and what it has seen.
struct Watch {
    state: TokenState,
    now: Moment,
    in_flight: bool,
    until: Instant,
    truth: Option<Truth>,
    secrets: u64,
    /// When the last attempt ended, and the pause that must follow it.
    quiet: Option<(Instant, Duration)>,
    forced_at: Option<Instant>,
    /// The next attempt may be a forced one.
    forced: bool,
}

impl Watch {
    fn new() -> Self {
        let now = start();
        Self {
            state: TokenState::new(TokenRules::default(), "test", now),
            now,
            in_flight: false,
            until: now.monotonic,
            truth: None,
            secrets: 0,
            quiet: None,
            forced_at: None,
            forced: false,
        }
    }

    fn happen(&mut self, event: &Event, jitter: Jitter) {
        match *event {
            Event::Pass(time) => self.now = self.now.after(time),
            Event::Sleep => {
                let left = self.until.saturating_duration_since(self.now.monotonic);
                self.now = self.now.after(left);
            }
            Event::WallForward(time) => self.now.wall += time,
            Event::WallBack(time) => self.now.wall -= time,
            Event::Succeed {
                life,
                refresh_in,
                same_token,
            } => self.succeed(life, refresh_in, same_token, jitter),
            Event::Fail { permanent } if self.in_flight => {
                let error = TokenError {
                    permanent,
                    ..TokenError::new("test", "down", "down")
                };
                self.state.fail(error, self.now, jitter);
                self.end_attempt(Duration::from_secs(if permanent { 5 } else { 1 }));
            }
            Event::Fail { .. } => {}
            Event::Demand => match self.state.demand(self.now) {
                Demand::Serve(_) | Demand::Wait { .. } => {}
                Demand::Refuse(_) => {
                    let (ended, pause) = self.quiet.expect("only a failure refuses");
                    assert!(self.now.monotonic < ended + pause, "refused for too long");
                }
            },
            Event::Reject => self.reject(),
        }
        self.check_token();
        self.drive();
    }

    fn succeed(
        &mut self,
        life: Duration,
        refresh_in: Option<Duration>,
        same_token: bool,
        jitter: Jitter,
    ) {
        if !self.in_flight {
            return;
        }
        self.secrets += u64::from(!same_token);
        let fetched = FetchedToken {
            secret: Secret::new(format!("token-{}", self.secrets)),
            time_to_live: life,
            refresh_in,
        };
        self.state.succeed(fetched, self.now, jitter);
        if life >= Duration::from_secs(1) {
            let life = life.min(TokenRules::default().life_max);
            self.truth = Some(Truth {
                since: self.now,
                life,
            });
        }
        self.end_attempt(Duration::from_secs(5));
    }

    fn end_attempt(&mut self, pause: Duration) {
        self.in_flight = false;
        self.forced = false;
        self.quiet = Some((self.now.monotonic, pause));
    }

    fn reject(&mut self) {
        let Ok(token) = self.state.token(self.now) else {
            return;
        };
        if self.state.reject(token.generation(), self.now) == Rejection::Wait && !self.forced {
            if let Some(forced_at) = self.forced_at {
                let since = self.now.monotonic - forced_at;
                assert!(
                    since >= Duration::from_secs(30),
                    "forced again after {since:?}"
                );
            }
            self.forced_at = Some(self.now.monotonic);
            self.forced = true;
        }
    }

    fn check_token(&mut self) {
        let token = self.state.token(self.now);
        let truth = self.truth;
        if token.is_ok() {
            let truth = truth.expect("a token came from somewhere");
            assert!(!truth.is_expired(self.now), "an expired token is served");
        }
        if truth.is_some_and(|truth| truth.must_serve(self.now)) {
            assert!(token.is_ok(), "a valid token is kept back");
        }
    }

    fn drive(&mut self) {
        match self.state.poll(self.now) {
            Step::Fetch { deadline } => {
                assert!(!self.in_flight, "two attempts at once");
                assert_eq!(deadline, self.now.monotonic + Duration::from_secs(15));
                if let (Some((ended, pause)), false) = (self.quiet, self.forced) {
                    let quiet = self.now.monotonic - ended;
                    assert!(quiet >= pause, "asked again after {quiet:?}");
                }
                self.in_flight = true;
                self.until = deadline;
            }
            Step::Wait { until } => {
                assert!(until > self.now.monotonic, "a wait that does not wait");
                assert!(until <= self.now.monotonic + Duration::from_secs(30));
                self.until = until;
            }
        }
        assert!(
            matches!(self.state.poll(self.now), Step::Wait { .. }),
            "polling twice asks twice"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_on_every_schedule(events in vec((event(), any::<u16>()), 1..200)) {
        let mut watch = Watch::new();
        watch.drive();
        for (event, jitter) in &events {
            watch.happen(event, Jitter::from_bits(*jitter));
        }
    }

    /// Whatever went before, a service that is back is asked within half a minute.
    #[test]
    fn a_service_that_is_back_is_found(events in vec((event(), any::<u16>()), 1..100)) {
        let mut watch = Watch::new();
        watch.drive();
        for (event, jitter) in &events {
            watch.happen(event, Jitter::from_bits(*jitter));
        }
        if watch.state.token(watch.now).is_err() {
            let since = watch.now.monotonic;
            while !watch.in_flight {
                watch.happen(&Event::Sleep, Jitter::from_bits(0));
            }
            let waited = watch.now.monotonic - since;
            prop_assert!(waited <= Duration::from_secs(30), "{waited:?}");
        }
    }
}
