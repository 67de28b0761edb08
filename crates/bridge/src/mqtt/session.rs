//! The broker: one connection after the other.
//!
//! Invariants: a connection begins with nothing in its queue and is told everything that is known; the queue has [`QUEUE`] places, and what
//! finds none stays on the board as its newest value. A broker that is away, refuses or stops reading costs pauses of up to [`PAUSE_MAX`] and
//! one line in the log for each cause. Refuses: to end because of the broker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eomt_edge_files::{bounds, files};
use rumqttc::{
    AsyncClient, Broker, ClientError, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Packet, PublishOptions,
    QoS, SubscribeFilter, TlsConfiguration, Transport,
};

use super::config::{BrokerAddress, Config};
use super::house::House;
use super::{incoming, layout};
use crate::stop::Stop;

/// Messages between board and network.
const QUEUE: usize = 64;
/// Largest message either way, bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
const KEEP_ALIVE_SECONDS: u16 = 15;
/// Between two looks at the board.
const TICK: Duration = Duration::from_millis(50);
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A connection that held so long was a good one.
const GOOD: Duration = Duration::from_secs(30);
/// What the broker kept of an earlier run arrives within this.
const KEPT: Duration = Duration::from_secs(5);
/// The last message and the farewell.
const FAREWELL: Duration = Duration::from_secs(3);
/// Home Assistant is told again at most this often.
const REBIRTH: Duration = Duration::from_secs(5);

/// Why a connection did not come about, or ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("password_file = '{path}': {source}")]
    Password { path: String, source: std::io::Error },
    #[error("ca_file = '{path}': {what}")]
    Certificates { path: String, what: String },
    #[error("the broker at {0} refuses {1}: user or password are wrong, or may not connect (user, password_file)")]
    Refused(BrokerAddress, String),
    #[error("the broker at {0} refuses the connection: {1:?}")]
    RefusedOtherwise(BrokerAddress, ConnectReturnCode),
    #[error("the broker at {0} cannot be reached or has ended: {1}")]
    Lost(BrokerAddress, String),
}

/// Keeps a connection until `stop` is requested.
pub async fn keep(config: &Config, address: &BrokerAddress, house: &House, stop: &Stop) {
    let (mut pause, mut complaint) = (PAUSE_MIN, None);
    while !stop.requested() {
        let start = Instant::now();
        let connected = AtomicBool::new(false);
        let Err(error) = connection(config, address, house, stop, &connected).await else { return };
        if connected.load(Ordering::Relaxed) {
            complaint = None;
        }
        let sentence = error.to_string();
        if complaint.as_ref() != Some(&sentence) {
            log::warn!("{sentence}; trying again");
            complaint = Some(sentence);
        }
        if start.elapsed() > GOOD {
            pause = PAUSE_MIN;
        }
        let until = Instant::now() + pause;
        while Instant::now() < until && !stop.requested() {
            tokio::time::sleep(TICK).await;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// One connection; `Ok` when it ended because of `stop`.
async fn connection(
    config: &Config,
    address: &BrokerAddress,
    house: &House,
    stop: &Stop,
    connected: &AtomicBool,
) -> Result<(), SessionError> {
    let (client, mut events) = AsyncClient::builder(options(config, address)?).capacity(QUEUE).build();
    let mut network = events.network_options();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    house.lock().board.forget();
    let link = Link { config, address, house, client, connected };
    tokio::select! {
        error = link.listen(&mut events) => if stop.requested() { Ok(()) } else { Err(link.error(error)) },
        () = link.tell(stop) => Ok(()),
    }
}

struct Link<'a> {
    config: &'a Config,
    address: &'a BrokerAddress,
    house: &'a House,
    client: AsyncClient,
    connected: &'a AtomicBool,
}

impl Link<'_> {
    /// What the broker says, until the connection ends.
    async fn listen(&self, events: &mut EventLoop) -> ConnectionError {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    log::info!("connected to the broker at {}; topics below {}", self.address, self.config.topic);
                    self.subscribe();
                    self.connected.store(true, Ordering::Relaxed);
                }
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    let topic = String::from_utf8_lossy(&message.topic);
                    self.house.take(incoming::parse(self.config, &topic, &message.payload, message.retain));
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    fn subscribe(&self) {
        let filters = filters(self.config).into_iter().map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
        // the queue is empty: nothing is told before the connection stands
        if self.client.try_subscribe_many(filters).is_err() {
            log::error!("the broker cannot be asked for what it keeps: topics of an earlier model may stay");
        }
    }

    /// Sends what is due; returns after the farewell.
    async fn tell(&self, stop: &Stop) {
        let mut ticks = tokio::time::interval(TICK);
        let mut connected_at = None;
        let mut reborn_at: Option<Instant> = None;
        loop {
            ticks.tick().await;
            if stop.requested() {
                return self.farewell().await;
            }
            if !self.connected.load(Ordering::Relaxed) {
                continue;
            }
            let since = *connected_at.get_or_insert_with(|| Some(Instant::now()));
            if since.is_some_and(|since| since.elapsed() > KEPT) {
                connected_at = Some(None);
                let own = filters(self.config).into_iter().filter(|filter| *filter != layout::birth_topic(self.config));
                own.for_each(|filter| drop(self.client.try_unsubscribe(filter)));
            }
            if reborn_at.is_none_or(|at| at.elapsed() > REBIRTH) && self.house.take_birth() {
                reborn_at = Some(Instant::now());
                self.house.lock().board.forget();
            }
            self.send_due();
        }
    }

    fn send_due(&self) {
        loop {
            let now = Instant::now();
            let Some(due) = self.house.lock().board.due(now) else { return };
            let options = PublishOptions::new(qos(self.config)).retain(due.retain);
            match self.client.try_publish(due.topic.as_str(), due.payload.clone(), options) {
                Ok(()) => {}
                Err(ClientError::InvalidRequest(_)) => log::error!("{}: no topic of MQTT", due.topic),
                // full: the board keeps it
                Err(_) => return,
            }
            self.house.lock().board.told(due, now);
        }
    }

    /// Says that nothing more comes.
    async fn farewell(&self) {
        if !self.connected.load(Ordering::Relaxed) {
            return;
        }
        let offline = PublishOptions::new(qos(self.config)).retained();
        let last = async {
            let notice = self.client.publish_tracked(layout::topic(self.config, "availability"), "offline".to_owned(), offline).await;
            if let Ok(notice) = notice {
                let _ = notice.wait_async().await;
            }
            if self.client.disconnect_now().await.is_ok() {
                // the other half ends when it has said so
                std::future::pending::<()>().await;
            }
        };
        if tokio::time::timeout(FAREWELL, last).await.is_err() {
            log::warn!("the broker at {} did not take the farewell; its last will says 'offline'", self.address);
        }
    }

    fn error(&self, error: ConnectionError) -> SessionError {
        use ConnectReturnCode::{BadUserNamePassword, NotAuthorized};
        let address = self.address.clone();
        match error {
            ConnectionError::ConnectionRefused(BadUserNamePassword | NotAuthorized) => {
                let user = &self.config.user;
                SessionError::Refused(
                    address,
                    if user.is_empty() { "a connection without user".to_owned() } else { format!("user '{user}'") },
                )
            }
            ConnectionError::ConnectionRefused(code) => SessionError::RefusedOtherwise(address, code),
            other => SessionError::Lost(address, other.to_string()),
        }
    }
}

fn options(config: &Config, address: &BrokerAddress) -> Result<MqttOptions, SessionError> {
    let mut options = MqttOptions::new(format!("eomt-edge-{}", config.node), Broker::tcp(address.host.clone(), address.port));
    options.set_keep_alive(KEEP_ALIVE_SECONDS).set_max_packet_size(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
    options.set_last_will(LastWill::new(layout::topic(config, "availability"), "offline", qos(config), true));
    if !config.password_file.as_os_str().is_empty() {
        let path = config.password_file.display().to_string();
        let text = files::read_text(&config.password_file, &bounds::SYSTEM).map_err(|source| SessionError::Password { path, source })?;
        options.set_credentials(config.user.clone(), text.lines().next().unwrap_or_default().to_owned());
    } else if !config.user.is_empty() {
        options.set_username(config.user.clone());
    }
    if address.tls {
        options.set_transport(Transport::tls_with_config(tls(config)?));
    }
    Ok(options)
}

fn tls(config: &Config) -> Result<TlsConfiguration, SessionError> {
    let path = config.ca_file.display().to_string();
    if path.is_empty() {
        let system = TlsConfiguration::try_default_rustls();
        return system
            .map_err(|error| SessionError::Certificates { path, what: format!("the system's certificates cannot be read: {error}") });
    }
    let ca =
        files::read_bytes(&config.ca_file, &bounds::TEXT).map_err(|error| SessionError::Certificates { path, what: error.to_string() })?;
    Ok(TlsConfiguration::Simple { ca, alpn: None, client_auth: None })
}

fn qos(config: &Config) -> QoS {
    match config.qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

/// What is asked of the broker: Home Assistant's birth, and what it keeps of an earlier run.
fn filters(config: &Config) -> Vec<String> {
    let mut filters = vec![layout::topic(config, "class/#"), layout::topic(config, "zone/#"), layout::discovery_topic(config)];
    if config.home_assistant.discovery {
        filters.push(layout::birth_topic(config));
    }
    if config.image_every().is_none() {
        filters.push(layout::topic(config, "image"));
    }
    filters
}
