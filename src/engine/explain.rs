//! What would become of a request, in words for a person: stage by stage and key by key, with nothing changed.

use super::branches::Told;
use super::{Engine, misses, refuse, tenant};
use crate::acl::DEFAULT;
use crate::command::{self, Fault, Merge, Need, Treatment};
use crate::error::CROSS_SHARD;
use crate::resp::Request;
use crate::stages::{Leg, Micros, Refusal, Verdict, missing};

const NO_SUCH_KEY: &str = "answered as if there were no such key";
const ABSENT_REPLY: &str = "answered with `absent_reply`";

/// See [`Engine::explain`].
pub(super) fn explain(engine: &Engine, pool: u16, wire: &[u8], now: Micros) -> Result<String, String> {
    let Some(place) = engine.pools.get(usize::from(pool)) else { return Err("no such pool".into()) };
    let request = Request::parse(wire).ok_or("not a request")?;
    // As for a session that has not said who it is; users of other prefixes name keys in full to see where they live.
    let prefix = place.config.users.get(DEFAULT.as_bytes()).and_then(|user| user.prefix());
    let full = match prefix.map(|prefix| tenant::full(prefix, &request)) {
        Some(Err(text)) => return Ok(format!("pool {}\n-> refused: {text}\n", place.config.name)),
        Some(Ok(full)) => full,
        None => None,
    };
    let wire = full.as_deref().unwrap_or(wire);
    let request = Request::parse(wire).ok_or("not a request")?;
    let identified = command::identify(&request);
    let treatment_of = |spec| match command::treatment(spec, &request) {
        Treatment::Refuse(why) if place.config.opens(why) => Treatment::Forward,
        treatment => treatment,
    };
    // A refused command is refused with any number of arguments: told before what is wrong with their number.
    let known = match &identified {
        Ok(spec) | Err(Fault::Arity(spec)) => Some((*spec, treatment_of(spec))),
        Err(Fault::Unknown) => None,
    };
    if let Some((spec, Treatment::Refuse(why))) = known {
        return Ok(format!("pool {}, command {}\n-> refused: {}\n", place.config.name, spec.name, why.text()));
    }
    let spec = identified.map_err(|fault| {
        let mut text = Vec::new();
        fault.write(&request, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    })?;
    let mut told = format!("pool {}, command {}\n", place.config.name, spec.name);
    let treatment = treatment_of(spec);
    if !place.config.routes.is_empty() {
        match engine.explain_way(place, spec, treatment, &request) {
            Told::Here => {}
            Told::Verdict(text) => return Ok(told + &text),
            Told::There(text, to) => return Ok(told + &text + &explain(engine, to, wire, now)?),
        }
    }
    let mut keys = Vec::new();
    match treatment {
        // Told above already.
        Treatment::Refuse(_) => {}
        Treatment::Local(_) => return Ok(told + "-> answered by hotring itself\n"),
        Treatment::Broadcast(merge) => {
            let turns = matches!(merge, Merge::InTurn).then_some(", one after the other").unwrap_or_default();
            return Ok(told + "-> sent to all shards" + turns + "\n");
        }
        Treatment::Own(Need::Subscription) => {
            return Ok(told + "-> subscribed where it is published: a channel at its home shard, a pattern at all\n");
        }
        Treatment::Publish => keys.push(1),
        Treatment::Forward | Treatment::Split(_) | Treatment::Own(_) => {
            command::keys(spec, &request, &mut |index| keys.push(index)).map_err(String::from)?;
        }
    }
    if keys.is_empty() && matches!(treatment, Treatment::Own(_)) {
        return Ok(told + "-> carried on a connection of the app's own, to the shard of the keys that follow\n");
    }
    if keys.is_empty() && matches!(treatment, Treatment::Forward) {
        let which = if place.config.path.route.shards().len() == 1 { "only" } else { "first" };
        let name = place.first_shard().and_then(|shard| place.config.shards.get(usize::from(shard)));
        let name = name.map_or("", String::as_str);
        return Ok(told + "no key: goes to the pool's " + which + " shard\n-> forwarded to " + name + "\n");
    }
    let alone = keys.len() == 1;
    let (mut shards, mut refused, mut answered, mut kept) = (Vec::new(), None, None, false);
    for key in keys.into_iter().filter_map(|index| request.arg(index)) {
        // As for a session that waits for nothing.
        let mut leg = Leg { alone, free: true, shares: true, ..Leg::new(spec, key, wire) };
        told += &format!("key {}\n", String::from_utf8_lossy(key).escape_debug());
        if let Some(reply) = misses::absent(&place.config.misses, spec, key) {
            let how = if reply.is_some() { ABSENT_REPLY } else { NO_SUCH_KEY };
            told += &format!("  misses     its id is not in `absent_ids`\n  -> {how}\n");
            answered = Some(how);
            continue;
        }
        let mut last = Verdict::Next;
        for (stage, verdict, text) in place.config.path.explain(&mut leg, now) {
            told += &format!("  {stage:<10} {text}\n");
            last = verdict;
        }
        let shard = place.config.shards.get(usize::from(leg.shard)).map_or("", String::as_str);
        let mut missed = Vec::new();
        if let Verdict::Refuse(Refusal::Missing(_)) = last
            && missing::reply(spec, &request, false, &mut missed)
        {
            told += &format!("  -> {NO_SUCH_KEY}\n");
            answered = Some(NO_SUCH_KEY);
            continue;
        }
        told += &misses::told(&place.config.misses, spec, key);
        if last == Verdict::Near {
            told += "  -> answered from memory\n";
            kept = true;
            continue;
        }
        if let Verdict::Refuse(refusal) = last {
            let mut text = Vec::new();
            refuse(refusal, shard, &mut text);
            let text = String::from_utf8_lossy(text.strip_prefix(b"-").unwrap_or(&text)).trim_end().to_owned();
            told += &format!("  -> refused: {text}\n");
            refused = refused.or(Some(text));
        } else {
            told += &format!("  -> {shard}, connection {}\n", leg.lane);
        }
        if !shards.contains(&shard) {
            shards.push(shard);
        }
    }
    // The verdict on the whole: as a request is carried out, keys on several shards come before shards that are down.
    let verdict = match (shards.as_slice(), refused) {
        ([_, _, ..], _) if !matches!(treatment, Treatment::Split(_)) => format!("refused: {CROSS_SHARD}"),
        (_, Some(text)) => format!("refused: {text}"),
        ([], None) if kept => "answered from memory".to_owned(),
        ([], None) if answered.is_some() => answered.unwrap_or_default().to_owned(),
        ([only], None) if matches!(treatment, Treatment::Own(_)) => {
            format!("carried to {only} on a connection of the app's own")
        }
        ([only], None) => format!("forwarded to {only}"),
        (several, None) => format!("split over {} shards", several.len()),
    };
    Ok(told + "-> " + &verdict + "\n")
}
