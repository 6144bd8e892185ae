//! Counter-based random bits: a pure function of what is drawn, never of who draws or when.
//!
//! The generator is Philox4x64-10 of J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random
//! numbers: as easy as 1, 2, 3", SC 2011, doi 10.1145/2063384.2063405. Its 256-bit counter and
//! 128-bit key hold every coordinate of a draw without folding, so two different draws never share
//! an input. Tesla's own generator is not public.

/// How many 32-bit words one [`random_block`] holds.
pub const RANDOM_BLOCK_WORDS: u64 = 8;

const MULTIPLIERS: [u64; 2] = [0xD2E7_470E_E14C_6C93, 0xCA5A_8263_9512_1157];
const WEYL: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xBB67_AE85_84CA_A73B];
const ROUNDS: u32 = 10;

/// The Philox4x64-10 bijection of `counter` under `key`.
pub const fn philox4x64_10(counter: [u64; 4], key: [u64; 2]) -> [u64; 4] {
    let mut c = counter;
    let mut k = key;
    let mut round = 0;
    while round < ROUNDS {
        let p0 = MULTIPLIERS[0] as u128 * c[0] as u128;
        let p1 = MULTIPLIERS[1] as u128 * c[2] as u128;
        c = [
            (p1 >> 64) as u64 ^ c[1] ^ k[0],
            p1 as u64,
            (p0 >> 64) as u64 ^ c[3] ^ k[1],
            p0 as u64,
        ];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        round += 1;
    }
    c
}

/// The words of `random_bits` for the eight elements `8 * block ..= 8 * block + 7`.
///
/// For kernels that draw for many consecutive elements: one block costs as much as one word.
pub const fn random_block(seed: u64, step: u64, site: u64, block: u64) -> [u32; 8] {
    let words = philox4x64_10([block, site, step, 0], [seed, 0]);
    let mut out = [0; 8];
    let mut i = 0;
    while i < 4 {
        out[2 * i] = words[i] as u32;
        out[2 * i + 1] = (words[i] >> 32) as u32;
        i += 1;
    }
    out
}

/// 32 uniform random bits for one draw.
///
/// `seed` is the seed of the run, `step` the step of the run (training step, token), `site` the op
/// of the source model that draws, `index` the element's row-major index in the *logical* tensor.
/// Because no core, thread or order is among the coordinates, results do not depend on the mapping.
pub const fn random_bits(seed: u64, step: u64, site: u64, index: u64) -> u32 {
    random_block(seed, step, site, index / RANDOM_BLOCK_WORDS)
        [(index % RANDOM_BLOCK_WORDS) as usize]
}
