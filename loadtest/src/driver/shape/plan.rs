//! What a shaped scenario does and when, before anything of it happens.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::options::{Burst, LongStreams, NoisyNeighbour, Ramp, ReconnectStorm, Steady};
use crate::driver::options::Arrivals;

/// The length of a burst: so short that no server works it off meanwhile.
const BURST_SECONDS: f64 = 0.5;

/// Whose a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// One of many people.
    People,
    /// The one who sends more than all others.
    Neighbour,
}

/// A stretch of time whose rate goes evenly from one value to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stretch {
    pub(crate) seconds: f64,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// A part of the run that its report names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) from: f64,
    pub(crate) until: f64,
}

/// The whole run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) people: Vec<Stretch>,
    pub(crate) neighbour: Vec<Stretch>,
    /// When every socket is cut, in seconds.
    pub(crate) cuts: Vec<f64>,
    pub(crate) phases: Vec<Phase>,
    /// The default directives for the model.
    pub(crate) marker: &'static str,
    /// Whether the text that was streamed is compared with the reply that was stored.
    pub(crate) compares_text: bool,
}

impl Plan {
    /// How long messages are sent, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.people.iter().map(|stretch| stretch.seconds).sum()
    }

    /// Messages per second that the plan means to send at a moment.
    pub(crate) fn rate_at(&self, second: f64) -> f64 {
        rate_at(&self.people, second) + rate_at(&self.neighbour, second)
    }

    /// When each message leaves and whose it is, in order.
    pub(crate) fn arrivals(&self, arrivals: Arrivals, seed: u64) -> Vec<(Duration, Who)> {
        let people = moments(&self.people, arrivals, seed);
        let neighbour = moments(&self.neighbour, arrivals, seed ^ 0x6e65_6967);
        let mut all: Vec<_> = people
            .into_iter()
            .map(|at| (at, Who::People))
            .chain(neighbour.into_iter().map(|at| (at, Who::Neighbour)))
            .collect();
        all.sort_by_key(|(at, _)| *at);
        all
    }
}

fn flat(seconds: f64, rate: f64) -> Stretch {
    Stretch {
        seconds,
        from: rate,
        to: rate,
    }
}

fn phase(name: impl Into<String>, from: f64, until: f64) -> Phase {
    Phase {
        name: name.into(),
        from,
        until,
    }
}

pub(crate) fn steady(options: &Steady) -> Plan {
    let (rate, seconds) = (options.rate, f64::from(options.seconds));
    Plan {
        name: "steady",
        title: format!("{rate} messages/s for {seconds} s"),
        people: vec![flat(seconds, rate)],
        marker: "ttft=200,rate=100,tokens=40",
        ..Plan::default()
    }
}

pub(crate) fn ramp(options: &Ramp) -> Plan {
    let (from, to, seconds) = (options.from, options.rate, f64::from(options.seconds));
    Plan {
        name: "ramp",
        title: format!("from {from} to {to} messages/s in {seconds} s"),
        people: vec![Stretch { seconds, from, to }],
        marker: "ttft=200,rate=100,tokens=40",
        ..Plan::default()
    }
}

pub(crate) fn burst(options: &Burst) -> Plan {
    let (rate, size) = (options.rate, f64::from(options.size));
    let every = f64::from(options.every).max(2.0 * BURST_SECONDS);
    let seconds = f64::from(options.seconds);
    let (mut people, mut phases) = (Vec::new(), Vec::new());
    let mut at = 0.0;
    while at < seconds {
        // Each burst comes in the middle, so that what was before and after it is seen.
        let half = every.min(seconds - at) / 2.0;
        people.push(flat((half - BURST_SECONDS / 2.0).max(0.1), rate));
        let begins: f64 = people.iter().map(|stretch| stretch.seconds).sum();
        people.push(flat(BURST_SECONDS, rate + size / BURST_SECONDS));
        phases.push(phase(
            format!("burst {}", phases.len() + 1),
            begins,
            begins + BURST_SECONDS,
        ));
        people.push(flat((half - BURST_SECONDS / 2.0).max(0.1), rate));
        at += every;
    }
    Plan {
        name: "burst",
        title: format!("{rate} messages/s, and {size} at once every {every} s"),
        people,
        phases,
        marker: "ttft=200,rate=100,tokens=40",
        ..Plan::default()
    }
}

pub(crate) fn reconnect_storm(options: &ReconnectStorm) -> Plan {
    let (rate, seconds) = (options.rate, f64::from(options.seconds));
    let parts = f64::from(options.storms + 1);
    Plan {
        name: "reconnect-storm",
        title: format!(
            "{rate} messages/s for {seconds} s, while all sockets are cut {} times",
            options.storms
        ),
        people: vec![flat(seconds, rate)],
        cuts: (1..=options.storms)
            .map(|storm| seconds * f64::from(storm) / parts)
            .collect(),
        // Slow enough that most replies are half told when the sockets go.
        marker: "ttft=300,rate=30,tokens=60",
        ..Plan::default()
    }
}

pub(crate) fn long_streams(options: &LongStreams) -> Plan {
    let (rate, seconds) = (options.rate, f64::from(options.seconds));
    Plan {
        name: "long-streams",
        title: format!("{rate} long replies/s for {seconds} s"),
        people: vec![flat(seconds, rate)],
        marker: "ttft=500,rate=25,tokens=500",
        compares_text: true,
        ..Plan::default()
    }
}

pub(crate) fn noisy_neighbour(options: &NoisyNeighbour) -> Plan {
    let (rate, noise) = (options.rate, options.noise);
    let third = f64::from(options.seconds) / 3.0;
    Plan {
        name: "noisy-neighbour",
        title: format!(
            "{rate} messages/s of many people for {:.0} s, and {noise}/s of one person in its middle third",
            3.0 * third
        ),
        people: vec![flat(3.0 * third, rate)],
        neighbour: vec![flat(third, 0.0), flat(third, noise), flat(third, 0.0)],
        phases: vec![
            phase("before", 0.0, third),
            phase("noise", third, 2.0 * third),
            phase("after", 2.0 * third, 3.0 * third),
        ],
        marker: "ttft=200,rate=100,tokens=40",
        ..Plan::default()
    }
}

fn rate_at(stretches: &[Stretch], second: f64) -> f64 {
    let mut begins = 0.0;
    for stretch in stretches {
        if second < begins + stretch.seconds {
            let part = ((second - begins) / stretch.seconds).max(0.0);
            return stretch.from + (stretch.to - stretch.from) * part;
        }
        begins += stretch.seconds;
    }
    0.0
}

/// The moments of arrivals whose rate changes: those of a rate of one, stretched so that the area
/// below the rate up to each of them stays the same.
fn moments(stretches: &[Stretch], arrivals: Arrivals, seed: u64) -> Vec<Duration> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut moments = Vec::new();
    let (mut wanted, mut passed, mut begins) = (0.0, 0.0, 0.0);
    let mut step = || match arrivals {
        Arrivals::Even => 1.0,
        Arrivals::Poisson => -(1.0 - random.random::<f64>()).ln(),
    };
    let mut first = true;
    for stretch in stretches {
        let area = (stretch.from + stretch.to) / 2.0 * stretch.seconds;
        loop {
            if first {
                // Of evenly spaced ones the first leaves at once.
                wanted = if arrivals == Arrivals::Even {
                    0.0
                } else {
                    step()
                };
                first = false;
            }
            if wanted >= passed + area {
                break;
            }
            let at = begins + inverse(stretch, wanted - passed);
            moments.push(Duration::from_secs_f64(at.max(0.0)));
            wanted += step();
        }
        passed += area;
        begins += stretch.seconds;
    }
    moments
}

/// The second of a stretch up to which `area` messages are due.
fn inverse(stretch: &Stretch, area: f64) -> f64 {
    let slope = (stretch.to - stretch.from) / stretch.seconds;
    if slope.abs() < 1e-9 {
        return area / stretch.from.max(1e-9);
    }
    let root = (stretch.from * stretch.from + 2.0 * slope * area).max(0.0);
    (root.sqrt() - stretch.from) / slope
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_sends_the_area_below_it() {
        let ramp = [Stretch {
            seconds: 10.0,
            from: 0.0,
            to: 100.0,
        }];
        let even = moments(&ramp, Arrivals::Even, 1);
        assert_eq!(even.len(), 500);
        // A quarter of the area lies below the first half.
        let early = even.iter().filter(|at| at.as_secs_f64() < 5.0).count();
        assert!((124..=126).contains(&early), "{early}");
        let poisson = moments(&ramp, Arrivals::Poisson, 1);
        // Five standard deviations of a Poisson count of 500 are 112.
        assert!((388..=612).contains(&poisson.len()), "{}", poisson.len());
        assert!(poisson.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(poisson.last().unwrap().as_secs_f64() < 10.0);
        assert!((rate_at(&ramp, 2.5) - 25.0).abs() < 1e-9);
    }

    #[test]
    fn a_burst_is_on_top_of_the_rate_and_where_the_plan_says() {
        let options = Burst {
            rate: 10.0,
            seconds: 20,
            size: 100,
            every: 10,
            ..Burst::for_tests()
        };
        let plan = burst(&options);
        assert!((plan.seconds() - 20.0).abs() < 1e-6, "{}", plan.seconds());
        let all = plan.arrivals(Arrivals::Even, 1);
        assert!((399..=401).contains(&all.len()), "{}", all.len());
        assert_eq!(plan.phases.len(), 2);
        for phase in &plan.phases {
            let inside = all
                .iter()
                .filter(|(at, _)| (phase.from..phase.until).contains(&at.as_secs_f64()))
                .count();
            assert!((104..=106).contains(&inside), "{inside}");
        }
    }

    #[test]
    fn the_neighbour_is_loud_in_the_middle_only() {
        let options = NoisyNeighbour {
            rate: 5.0,
            seconds: 9,
            noise: 50.0,
            ..NoisyNeighbour::for_tests()
        };
        let plan = noisy_neighbour(&options);
        let all = plan.arrivals(Arrivals::Even, 1);
        let loud: Vec<_> = all
            .iter()
            .filter(|(_, who)| *who == Who::Neighbour)
            .collect();
        assert_eq!((loud.len(), all.len() - loud.len()), (150, 45));
        assert!(
            loud.iter()
                .all(|(at, _)| (3.0..6.0).contains(&at.as_secs_f64()))
        );
    }
}
