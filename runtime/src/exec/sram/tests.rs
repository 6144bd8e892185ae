use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::super::block::Account;
use super::*;

const SIZE: u32 = 256;

/// An interval within the memory, not empty.
fn interval(random: &mut Pcg64) -> (u32, u32) {
    let start = random.random_range(0..SIZE);
    (start, random.random_range(1..=SIZE - start))
}

fn check(sram: &Sram, model: &[u8], seed: u64) {
    let mut spare = Vec::new();
    assert_eq!(sram.read(0, SIZE, &mut spare), model, "seed {seed}");
    let ends = sram.slabs.windows(2);
    assert!(ends.into_iter().all(|pair| pair[0].end() <= pair[1].start));
    for slab in &sram.slabs {
        assert!(slab.len > 0 && slab.start % PHASE == slab.at % PHASE);
        assert_eq!(
            slab.bytes(),
            &model[slab.start as usize..slab.end() as usize]
        );
    }
}

/// Random operations on two memories that exchange pieces, against plain arrays.
#[test]
fn slabs_are_like_plain_memory() {
    for seed in 0..300 {
        let mut random = Pcg64::seed_from_u64(seed);
        let account = Arc::<Account>::default();
        let mut pool = Pool::new(&account);
        let mut srams = [Sram::default(), Sram::default()];
        let mut models = [[0u8; SIZE as usize]; 2];
        for value in 1..=60u8 {
            let at = random.random_range(0..2);
            let (start, len) = interval(&mut random);
            let range = start as usize..(start + len) as usize;
            match random.random_range(0..6) {
                0 => {
                    let home = interval(&mut random);
                    srams[at].write((start, len), home, &mut pool).fill(value);
                    models[at][range].fill(value);
                }
                1 => {
                    let (mut block, position) = Sram::fresh(start, len, &mut pool);
                    let bytes = Arc::get_mut(&mut block).unwrap().bytes_mut();
                    bytes[position as usize..][..len as usize].fill(value);
                    let piece = Piece {
                        block,
                        at: position,
                        len,
                    };
                    srams[at].replace(start, piece, &mut pool);
                    models[at][range].fill(value);
                }
                2 => {
                    srams[at].cut(start, len, &mut pool);
                    models[at][range].fill(0);
                }
                3 => {
                    srams[at].join(start, len, &mut pool);
                }
                4 => {
                    // A message of a whole slab to the other memory.
                    let slabs = srams[at].slabs.len();
                    if slabs > 0 {
                        let slab = srams[at].slabs[random.random_range(0..slabs)].clone();
                        let piece = srams[at].share(slab.start, slab.len).unwrap();
                        let to = random.random_range(0..=SIZE - slab.len);
                        assert_eq!(piece.bytes(), slab.bytes());
                        if Sram::fits(to, &piece) {
                            srams[1 - at].replace(to, piece, &mut pool);
                            let from = slab.start as usize..slab.end() as usize;
                            let copy = models[at][from].to_vec();
                            models[1 - at][to as usize..][..copy.len()].copy_from_slice(&copy);
                        }
                    }
                }
                _ => {
                    let mut keep = Intervals::default();
                    keep.insert(u64::from(start), u64::from(len));
                    let before = srams[at].snapshot(&keep);
                    srams[at].retain(&keep, &mut pool);
                    for (byte, value) in models[at].iter_mut().enumerate() {
                        *value *= u8::from(range.contains(&byte));
                    }
                    check(&before, &models[at], seed);
                }
            }
            check(&srams[0], &models[0], seed);
            check(&srams[1], &models[1], seed);
        }
        srams.iter_mut().for_each(|sram| sram.clear(&mut pool));
        drop(pool);
        account.begin(u64::MAX);
        assert_eq!(account.most(), 0, "all blocks were given back");
    }
}
