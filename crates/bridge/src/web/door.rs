//! The daemon's control socket for viewers: its state and log are asked for while somebody looks, and orders are passed on.
//!
//! Invariants: one order at a time, of all viewers; without a token there are none. Refuses: to ask while nobody looks.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::{Value, json};

use super::hub::{Hub, Log, publish};
use super::message::Request;
use crate::control::{Control, ControlError, LOADING, SOON};

/// Between two questions.
const EVERY: Duration = Duration::from_secs(1);

/// Asks for state and log until `stop` is dropped.
pub fn run(hub: &Hub, stop: &Receiver<()>) {
    let mut connection = None;
    loop {
        if hub.viewers() > 0 {
            let status = look(hub, &mut connection);
            if status.is_err() {
                connection = None;
            }
            publish(&hub.door, &message(hub, status));
        }
        match stop.recv_timeout(EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
    }
}

/// The daemon's state; its log goes to the hub.
fn look(hub: &Hub, connection: &mut Option<Control>) -> Result<Value, ControlError> {
    let mut control = match connection.take() {
        Some(control) => control,
        None => {
            let control = Control::connect(&hub.control)?;
            hub.log.send_modify(Log::restart);
            control
        }
    };
    let status = control.status()?;
    loop {
        let mut log = hub.log.borrow().clone();
        let answer = control.log(log.newest())?;
        if log.extend(&answer) {
            hub.log.send_replace(log);
        }
        if answer["more"] != true {
            break;
        }
    }
    *connection = Some(control);
    Ok(status)
}

/// What the page gets: the state, whether it may give orders, and else why not.
fn message(hub: &Hub, status: Result<Value, ControlError>) -> Value {
    let allowed = hub.auth.is_some();
    match status {
        Ok(mut status) => {
            // the ring has told them already
            if let Some(model) = status["model"].as_object_mut() {
                model.remove("labels");
            }
            let reason = if allowed {
                Value::Null
            } else {
                json!("eomt-edge-bridge web runs without --token-file: settings can be seen, not changed")
            };
            json!({ "type": "control", "allowed": allowed, "reason": reason, "status": status })
        }
        Err(error) => json!({ "type": "control", "allowed": false, "reason": error.to_string(), "status": null }),
    }
}

/// Passes an order on, and waits for its end. The answer for the page.
pub async fn order(hub: Arc<Hub>, request: Request, viewer: String) -> Option<Value> {
    let (id, question) = request.for_daemon()?;
    let answer = |result: Result<Value, String>| match result {
        Ok(said) => json!({ "type": "answer", "id": id, "ok": true, "lasts": said["lasts"] }),
        Err(error) => json!({ "type": "answer", "id": id, "ok": false, "error": error }),
    };
    if hub.auth.is_none() {
        return Some(answer(Err("nothing can be changed here: eomt-edge-bridge web runs without --token-file".into())));
    }
    let Ok(_turn) = hub.orders.try_acquire() else {
        return Some(answer(Err("another order is in work: try again when it has ended".into())));
    };
    let (path, patience) = (hub.control.clone(), if matches!(request, Request::Thresholds { .. }) { SOON } else { LOADING });
    log::info!("viewer {viewer} asks for {question}");
    let asked = tokio::task::spawn_blocking(move || Control::connect(&path)?.ask(&question, patience)).await;
    let result = asked.map_err(|error| error.to_string()).and_then(|asked| asked.map_err(|error| error.to_string()));
    match &result {
        Ok(_) => log::info!("viewer {viewer}: done"),
        Err(error) => log::warn!("viewer {viewer}: {error}"),
    }
    Some(answer(result))
}
