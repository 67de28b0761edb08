//! Which topics there are for a model and a configuration.
//!
//! Invariants: at most [`TOPICS_MAX`] topics; a class that is not published is named in the log. Refuses: topics that are not below the
//! configured one, but for Home Assistant's.

use super::board::{Board, Pace};
use super::config::Config;
use super::names;

/// Most topics for classes and zones: 130 classes in 14 zones. Discovery of so many has 2 MB.
pub const TOPICS_MAX: usize = 4096;

/// Topics that every model has; indices into the board.
#[derive(Debug, Clone, Copy)]
pub struct Fixed {
    /// What Home Assistant is told.
    pub discovery: Option<usize>,
    /// `online` or `offline`.
    pub availability: usize,
    /// Whether the source gives frames.
    pub signal: usize,
    /// The picture.
    pub image: Option<usize>,
}

/// Topics of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassTopics {
    /// The model's number of it.
    pub class: usize,
    /// Its name.
    pub label: String,
    /// Its name in topics.
    pub slug: String,
    /// Board: `ON` or `OFF`.
    pub present: usize,
    /// Board: segments.
    pub count: usize,
    /// Board: fraction of the picture.
    pub area: usize,
    /// Board: present and area of each zone.
    pub zones: Vec<(usize, usize)>,
}

/// The topic of `level`, below the configured one.
pub fn topic(config: &Config, level: &str) -> String {
    format!("{}/{level}", config.topic)
}

/// The topic of what Home Assistant is told.
pub fn discovery_topic(config: &Config) -> String {
    format!("{}/device/eomt-edge-{}/config", config.home_assistant.prefix, config.node)
}

/// The topics that every model has, on an empty board.
pub fn fixed(config: &Config, board: &mut Board) -> Fixed {
    let discovery = config.home_assistant.discovery.then(|| board.add(discovery_topic(config), Pace::AtOnce, true));
    Fixed {
        discovery,
        availability: board.add(topic(config, "availability"), Pace::AtOnce, true),
        signal: board.add(topic(config, "signal"), Pace::AtOnce, config.retain),
        image: config.image_every().map(|_| board.add(topic(config, "image"), Pace::AtOnce, config.retain)),
    }
}

/// The topics of a model's classes, behind the fixed ones.
pub fn classes(config: &Config, labels: &[String], board: &mut Board) -> Vec<ClassTopics> {
    let mut wanted: Vec<usize> = (0..labels.len()).collect();
    if !config.classes.is_empty() {
        wanted.retain(|&class| config.classes.contains(&labels[class]));
        for name in config.classes.iter().filter(|name| !labels.contains(name)) {
            log::warn!("classes = '{name}': the model has no such class; it has {}", short_list(labels));
        }
    }
    let each = 3 + 2 * config.zones.len();
    let most = TOPICS_MAX / each;
    if wanted.len() > most {
        let (all, zones) = (wanted.len(), config.zones.len());
        log::warn!(
            "{all} classes in {zones} zones are too many topics: only the first {most} are published; name those you want (classes)"
        );
        wanted.truncate(most);
    }
    let slugs = names::class_slugs(labels);
    wanted.into_iter().map(|class| class_topics(config, class, &labels[class], &slugs[class], board)).collect()
}

fn class_topics(config: &Config, class: usize, label: &str, slug: &str, board: &mut Board) -> ClassTopics {
    let mut add = |level: String, pace| board.add(topic(config, &level), pace, config.retain);
    let zone_slugs = config.zones.iter().filter_map(|zone| names::slug(&zone.name));
    ClassTopics {
        class,
        label: label.to_owned(),
        slug: slug.to_owned(),
        present: add(format!("class/{slug}/present"), Pace::AtOnce),
        count: add(format!("class/{slug}/count"), Pace::Interval),
        area: add(format!("class/{slug}/area"), Pace::Interval),
        zones: zone_slugs
            .map(|zone| (add(format!("zone/{zone}/{slug}/present"), Pace::AtOnce), add(format!("zone/{zone}/{slug}/area"), Pace::Interval)))
            .collect(),
    }
}

fn short_list(labels: &[String]) -> String {
    let more = if labels.len() > 20 { ", ..." } else { "" };
    labels.iter().take(20).map(|label| format!("'{label}'")).collect::<Vec<_>>().join(", ") + more
}

/// Where Home Assistant says that it is there.
pub fn birth_topic(config: &Config) -> String {
    format!("{}/status", config.home_assistant.prefix)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn too_many_topics_are_cut() {
        let mut config = Config::parse("", "pi").unwrap();
        let labels: Vec<String> = (0..3000).map(|i| format!("c{i}")).collect();
        let mut board = Board::new(Duration::ZERO);
        assert_eq!(classes(&config, &labels, &mut board).len(), TOPICS_MAX / 3);
        assert!(board.len() <= TOPICS_MAX);
        config.classes = vec!["c2999".to_owned(), "owl".to_owned()];
        let only = classes(&config, &labels, &mut Board::new(Duration::ZERO));
        assert_eq!(only.iter().map(|topics| topics.class).collect::<Vec<_>>(), [2999]);
    }
}
