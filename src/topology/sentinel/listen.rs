//! Hears what a sentinel tells unasked: that there is another primary, that a server is down or back.
//!
//! What is heard is a reason to ask and nothing else: one sentinel alone is not believed.
//!
//! Promises: a connection that is gone is opened again, with growing patience; one on which nothing is heard is asked whether
//! it is still there. What was told meanwhile is not missed, since it is asked anew after each return.

use super::replies;
use crate::chance::splitmix;
use crate::resp::control::Control;
use crate::resp::write;
use crate::topology::talk::{Access, Talk, one_line};
use crate::units::Address;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// That there is another primary.
const SWITCH: &str = "+switch-master";
/// What else is a reason to look: a server that is down or back, a replica that has come, an old primary that follows.
const HINTS: [&str; 4] = ["+sdown", "-sdown", "+slave", "+convert-to-slave"];
/// Silence after which it is asked whether it is there, and after which it is not.
const SILENCE: Duration = Duration::from_secs(5);
/// Between attempts, at first and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What was heard since it was last asked for.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Notify,
    switched: AtomicBool,
}

impl Bell {
    fn ring(&self, switched: bool) {
        if switched {
            self.switched.store(true, Ordering::Relaxed);
        }
        self.rung.notify_one();
    }

    /// Waits until something is heard; true if it is that there is another primary.
    pub(super) async fn heard(&self) -> bool {
        self.rung.notified().await;
        self.switched.swap(false, Ordering::Relaxed)
    }
}

/// Listens for as long as it is polled.
pub(super) type Ear = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// Listens to one sentinel.
pub(super) fn ear(at: Address, access: Access, patience: Duration, bell: Arc<Bell>, seed: u64) -> Ear {
    Box::pin(listen(at, access, patience, bell, seed))
}

async fn listen(at: Address, access: Access, patience: Duration, bell: Arc<Bell>, seed: u64) {
    let (mut wait, mut chance, mut is_back) = (PATIENCE.0, seed, false);
    let mut told = String::new();
    loop {
        let reason = match timeout(patience, subscribe(&at, &access)).await {
            Ok(Ok(talk)) => {
                tracing::debug!(sentinel = %at, "listening");
                wait = PATIENCE.0;
                told.clear();
                if std::mem::replace(&mut is_back, true) {
                    bell.ring(true);
                }
                hear(talk, &bell).await
            }
            Ok(Err(reason)) => reason,
            Err(_) => "no answer within connect_timeout".into(),
        };
        if told != reason {
            tracing::warn!(sentinel = %at, reason, "cannot be listened to");
            told = reason;
        }
        chance = splitmix(chance);
        sleep(wait.mul_f64(1.0 + (chance % 1024) as f64 / 2048.0)).await;
        wait = wait.saturating_mul(2).min(PATIENCE.1);
    }
}

async fn subscribe(at: &Address, access: &Access) -> Result<Talk, String> {
    let mut talk = Talk::open(at, access).await?;
    let mut request: Vec<&[u8]> = vec![b"SUBSCRIBE", SWITCH.as_bytes()];
    request.extend(HINTS.iter().map(|hint| hint.as_bytes()));
    let said = talk.ask(&request).await?;
    match said {
        Control::Error(text) => Err(one_line(&text)),
        _ => Ok(talk),
    }
}

/// Returns, with the reason, when nothing more will be heard.
async fn hear(mut talk: Talk, bell: &Bell) -> String {
    let mut asked = false;
    let mut ping = Vec::new();
    write::request(&mut ping, &[b"PING"]);
    loop {
        match timeout(SILENCE, talk.next()).await {
            Ok(Ok(reply)) => {
                asked = false;
                if let Some(channel) = replies::news(&reply) {
                    bell.ring(channel == SWITCH);
                }
            }
            Ok(Err(reason)) => return reason,
            Err(_) if asked => return "it has fallen silent".into(),
            Err(_) => {
                asked = true;
                match timeout(SILENCE, talk.send(&ping)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => return reason,
                    Err(_) => return "it has fallen silent".into(),
                }
            }
        }
    }
}
