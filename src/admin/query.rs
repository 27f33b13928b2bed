//! The query of `/explain`, as bytes: a key need not be text, so percent signs are undone here and not by a decoder that
//! replaces what is not UTF-8.

/// What to explain.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explain {
    pub(super) pool: Option<String>,
    /// The command, then its arguments.
    pub(super) request: Vec<Vec<u8>>,
}

/// Reads `key=K[&command=GET][&arg=A ...][&pool=P]`. `key` and `arg` are the arguments in the order given and may be
/// repeated; there is at least one `key`.
pub(super) fn parse(query: &str) -> Result<Explain, String> {
    let (mut command, mut pool, mut arguments, mut keys) = (None, None, Vec::new(), 0);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or_else(|| format!("`{name}` has a percent sign without two hex digits"))?;
        let once = match name {
            "key" | "arg" => {
                keys += usize::from(name == "key");
                arguments.push(value);
                continue;
            }
            "command" => &mut command,
            "pool" => &mut pool,
            _ => return Err("it takes key, command, arg and pool".to_owned()),
        };
        if once.replace(value).is_some() {
            return Err(format!("`{name}` is given twice"));
        }
    }
    if keys == 0 {
        return Err("which key? ?key=K[&command=GET][&arg=A ...][&pool=P]".to_owned());
    }
    let pool = pool.map(|pool| String::from_utf8(pool).map_err(|_| "`pool` is not UTF-8".to_owned())).transpose()?;
    let mut request = vec![command.unwrap_or_else(|| b"GET".to_vec())];
    request.append(&mut arguments);
    Ok(Explain { pool, request })
}

/// Undoes percent-encoding and `+`; `None` if a percent sign stands alone.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: &str) -> Vec<Vec<u8>> {
        parse(query).unwrap().request
    }

    #[test]
    fn a_key_alone_is_a_get() {
        assert_eq!(request("key=a"), [b"GET".to_vec(), b"a".to_vec()]);
        assert_eq!(parse("key=a&pool=p%20q").unwrap().pool.as_deref(), Some("p q"));
    }

    #[test]
    fn arguments_keep_their_order() {
        let want: Vec<Vec<u8>> = ["MSET", "a", "1", "b", "2"].map(|word| word.into()).into();
        assert_eq!(request("key=a&arg=1&command=MSET&key=b&arg=2"), want);
    }

    #[test]
    fn every_byte_can_be_in_a_key() {
        let every: Vec<u8> = (0..=255).collect();
        let query: String = every.iter().map(|byte| format!("%{byte:02x}")).collect();
        assert_eq!(request(&format!("key={query}"))[1], every);
        assert_eq!(request("key=a+b%2B%3d=")[1], b"a b+==");
        assert_eq!(request("key=")[1], b"");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for query in
            ["", "command=GET", "arg=1", "key=%", "key=%1", "key=%zz", "key=%+1", "kye=a&key=a", "pool=%ff&key=a"]
        {
            assert!(parse(query).is_err(), "{query}");
        }
        assert!(parse("key=a&pool=a&pool=b").unwrap_err().contains("twice"));
    }
}
