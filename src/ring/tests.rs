use super::*;

fn shards(named: &[(&str, u32)]) -> Vec<Shard> {
    named.iter().map(|&(name, weight)| Shard { name: name.to_owned(), weight }).collect()
}

fn servers(count: usize) -> Vec<Shard> {
    (1..=count).map(|i| Shard { name: format!("server{i}"), weight: 1 }).collect()
}

fn ring(shards: &[Shard], distribution: Distribution) -> Ring {
    Ring::new(shards, &[], KeyHash::default(), distribution, None)
}

#[test]
fn names() {
    assert_eq!(shard_name(Some("alpha"), "10.0.0.1", 6379), "alpha");
    assert_eq!(shard_name(None, "10.0.0.1", 6379), "10.0.0.1:6379");
    assert_eq!(shard_name(None, "10.0.0.1", 11211), "10.0.0.1");
    assert_eq!(socket_name(Some("alpha"), "/run/a.sock"), "alpha");
    assert_eq!(socket_name(None, "/run/a.sock"), "/run/a.sock:");
    for distribution in Distribution::ALL {
        assert_eq!(distribution.name().parse(), Ok(distribution));
    }
    assert!("rendezvous".parse::<Distribution>().unwrap_err().to_string().contains("even"));
}

#[test]
fn hash_tags() {
    let cases: [(&[u8; 2], &str, &str); 10] = [
        (b"{}", "user:{42}:name", "42"),
        (b"{}", "plain", "plain"),
        (b"{}", "{}a", "{}a"),
        (b"{}", "{}{a}", "{}{a}"),
        (b"{}", "}{a}{b}", "a"),
        (b"{}", "{{a}}", "{a"),
        (b"{}", "a{b", "a{b"),
        (b"{}", "a{", "a{"),
        (b"$$", "a$b$c$", "b"),
        (b"$$", "a$$b$", "a$$b$"),
    ];
    for (tag, key, counts) in cases {
        let ring = Ring::new(&servers(3), &[], KeyHash::default(), Distribution::Ketama, Some(*tag));
        assert_eq!(ring.tagged(key.as_bytes()), counts.as_bytes(), "{key}");
        assert_eq!(ring.position(key.as_bytes()), KeyHash::default().hash(counts.as_bytes()), "{key}");
    }
    assert_eq!(ring(&servers(3), Distribution::Ketama).tagged(b"{a}b"), b"{a}b");
}

#[test]
fn empty_keys_are_at_0_and_lone_shards_hash_nothing() {
    for distribution in Distribution::ALL {
        assert_eq!(ring(&servers(3), distribution).position(b""), 0);
        let alone = ring(&servers(1), distribution);
        assert_eq!((alone.position(b"key"), alone.shard_of(b"key"), alone.points()), (0, Some(0), vec![1]));
    }
}

#[test]
fn no_live_shard_no_answer() {
    for distribution in Distribution::ALL {
        for count in 0..4 {
            let ring = Ring::new(&servers(count), &[false; 4], KeyHash::Md5, distribution, None);
            assert_eq!((ring.shard_of(b"key"), ring.neighbours(7, &mut [0; 2])), (None, 0), "{distribution} {count}");
            assert_eq!((ring.shares(), ring.points()), (vec![0.0; count], vec![0; count]));
            assert_eq!(ring.warnings(), Vec::<String>::new());
        }
    }
}

#[test]
fn modula_counts_by_length_then_bytes_and_repeats_weights() {
    let ring = ring(&shards(&[("aaa", 1), ("c", 2), ("b", 1)]), Distribution::Modula);
    let owners: Vec<_> = (0..8).map(|position| ring.shard_at(position, 9)).collect();
    assert_eq!(owners, [2, 1, 1, 0, 2, 1, 1, 0].map(Some));
    assert_eq!((ring.points(), ring.shares()), (vec![1, 2, 1], vec![0.25, 0.5, 0.25]));
}

#[test]
fn random_goes_by_entropy_alone() {
    let shards = servers(4);
    let ring = Ring::new(&shards, &[true, false, true, true], KeyHash::default(), Distribution::Random, None);
    let owners: Vec<_> = (0..6).map(|entropy| ring.shard_at(7, entropy)).collect();
    assert_eq!(owners, [0, 2, 3, 0, 2, 3].map(Some));
}

#[test]
fn huge_weights_cost_no_memory_and_no_panic() {
    let shards = shards(&[("a", u32::MAX), ("b", u32::MAX), ("c", 1)]);
    for distribution in Distribution::ALL {
        let ring = ring(&shards, distribution);
        assert!(ring.shard_of(b"key").is_some() && ring.shares().iter().sum::<f64>() > 0.99, "{distribution}");
    }
}

#[test]
fn ejection_under_even_moves_only_the_keys_of_the_ejected() {
    let shards = shards(&[("a", 1), ("b", 5), ("c", 2), ("d", 100)]);
    let all = ring(&shards, Distribution::Even);
    let without = Ring::new(&shards, &[true, true, false, true], KeyHash::default(), Distribution::Even, None);
    let mut second = [0; 2];
    for i in 0..20_000u32 {
        let position = all.position(&i.to_le_bytes());
        let (before, after) = (all.shard_at(position, 0), without.shard_at(position, 0));
        assert_eq!(all.neighbours(position, &mut second), 2);
        assert_eq!(Some(second[0]), before);
        assert_eq!(after, if before == Some(2) { Some(second[1]) } else { before });
    }
}

/// There is no other program to compare `even` with, so what it did on its first day is what it has to do.
#[test]
fn even_stays_as_it_is() {
    let shards = shards(&[("alpha", 1), ("beta", 3), ("10.0.0.1:6379", 2), ("tiny", 1)]);
    let ring = ring(&shards, Distribution::Even);
    let placed: String = (0..48).map(|i| ring.shard_of(format!("user:{i}").as_bytes()).unwrap().to_string()).collect();
    assert_eq!(placed, "131231223012122101023221101011331110311223000132");
    let sum = (0..100_000u32).fold(0u32, |sum, i| {
        let shard = ring.shard_at(i.wrapping_mul(0x9e37_79b1), 0).unwrap();
        sum.wrapping_mul(31).wrapping_add(u32::from(shard))
    });
    assert_eq!((sum, ring.points()), (163054131, vec![572, 1716, 1144, 572]));
}

#[test]
fn neighbours_are_distinct_and_all_there_are() {
    for distribution in Distribution::ALL {
        let ring = Ring::new(&servers(5), &[true, true, true, false], KeyHash::default(), distribution, None);
        for position in (0..1000u32).map(|i| i.wrapping_mul(0x9e37_79b1)) {
            let mut out = [u16::MAX; 9];
            assert_eq!(ring.neighbours(position, &mut out), 4);
            if distribution != Distribution::Random {
                assert_eq!(Some(out[0]), ring.shard_at(position, 0), "{distribution}");
            }
            out.sort_unstable();
            assert_eq!(out[..4], [0, 1, 2, 4], "{distribution}");
            assert_eq!(ring.neighbours(position, &mut []), 0);
        }
    }
}

#[test]
fn shares_are_what_look_ups_give() {
    for distribution in [Distribution::Ketama, Distribution::Even] {
        for hash in [KeyHash::Fnv1a_64, KeyHash::Crc32] {
            let ring = Ring::new(&servers(4), &[], hash, distribution, None);
            let (step, end) = if ring.shares().contains(&1.0) { (1, 0x7fff) } else { (40_009, u32::MAX) };
            let mut counts = [0u32; 4];
            (0..=end).step_by(step).for_each(|at| counts[usize::from(ring.shard_at(at, 0).unwrap())] += 1);
            for (count, share) in counts.iter().zip(ring.shares()) {
                let counted = f64::from(*count) / f64::from(counts.iter().sum::<u32>());
                assert!((counted - share).abs() < 0.002, "{distribution} {hash}: {counted} {share}");
            }
        }
    }
}

#[test]
fn warnings_tell_what_hurts() {
    let warned = |shards: &[Shard], hash, distribution| Ring::new(shards, &[], hash, distribution, None).warnings();
    let tiny = shards(&[("big", 100), ("tiny", 1)]);
    let fnv = KeyHash::default();

    let crc32 = warned(&servers(5), KeyHash::Crc32, Distribution::Ketama);
    assert!(matches!(&crc32[..], [one] if one.contains("crc32") && one.contains("100 %")), "{crc32:?}");
    let weight = warned(&tiny, fnv, Distribution::Ketama);
    assert!(matches!(&weight[..], [one] if one.contains("`tiny`") && one.contains("1 out of 101")), "{weight:?}");
    let random = warned(&tiny, fnv, Distribution::Random);
    assert!(matches!(&random[..], [one] if one.contains("weights")), "{random:?}");
    // Four points each: some stand well apart.
    let small = (0..60).map(|i| Shard { name: format!("small{i}"), weight: 1 });
    let uneven = warned(&small.chain(shards(&[("big", 2000)])).collect::<Vec<_>>(), fnv, Distribution::Ketama);
    assert!(matches!(&uneven[..], [one] if one.contains("uneven") && one.contains("times")), "{uneven:?}");

    let none = Vec::<String>::new();
    for distribution in Distribution::ALL {
        assert_eq!(warned(&servers(5), fnv, distribution), none, "{distribution}");
        assert_eq!(warned(&servers(1), KeyHash::Crc32, distribution), none, "{distribution}");
    }
    assert_eq!(warned(&servers(5), KeyHash::Crc32, Distribution::Even), none);
    assert_eq!(warned(&tiny, fnv, Distribution::Even), none);
}
