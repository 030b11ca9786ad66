// SPDX-License-Identifier: Apache-2.0
// Vec, HashMap, BTreeMap, Strings and threads that share them.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::thread;

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e3779b97f4a7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
    x ^ (x >> 31)
}

fn main() {
    let mut v: Vec<u64> = Vec::new();
    for i in 0..4_000_000u64 {
        v.push(mix(i));
    }
    v.sort_unstable();
    let v = Arc::new(v);
    let total = Arc::new(Mutex::new((0u64, BTreeMap::<u64, String>::new())));
    let threads: Vec<_> = (0..4u64)
        .map(|t| {
            let (v, total) = (v.clone(), total.clone());
            thread::spawn(move || {
                let mut h: HashMap<u64, Vec<u8>> = HashMap::new();
                for i in 0..100_000u64 {
                    let k = v[(i * 37 + t) as usize % v.len()];
                    h.entry(k).or_default().extend_from_slice(&i.to_le_bytes());
                }
                let mut sum = 0u64;
                for (k, b) in &h {
                    sum = sum.wrapping_add(k ^ b.len() as u64);
                }
                let mut out = total.lock().unwrap();
                out.0 = out.0.wrapping_add(sum);
                for i in 0..20_000 {
                    out.1.insert(v[i * 100] ^ t, format!("{} {}", t, i));
                }
            })
        })
        .collect();
    for t in threads {
        t.join().unwrap();
    }
    let caught = std::panic::catch_unwind(|| {
        let big = vec![1u8; 10 << 20];
        if big[5 << 20] == 1 {
            panic!("as planned");
        }
    });
    let out = total.lock().unwrap();
    let chars: usize = out.1.values().map(|s| s.len()).sum();
    println!("{} {} {} {}", out.0, out.1.len(), chars, caught.is_err());
}
