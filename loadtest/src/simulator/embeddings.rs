//! Vectors without a model: a feature hash of words and character trigrams.
//!
//! The same text always gives the same vector, texts that share words or parts of words are
//! near, and unrelated ones are nearly orthogonal. That is all that retrieval tests need.

use super::marker;
use super::reply;

/// How much a shared trigram counts beside a shared word.
const TRIGRAM_WEIGHT: f64 = 0.35;

/// The vector of `text`: `dimension` numbers of Euclidean length 1.
///
/// Upper and lower case, punctuation and markers make no difference. A text without any letter
/// or digit gives the first unit vector, because a null vector has no direction to compare.
pub fn embed(text: &str, dimension: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; dimension.max(1)];
    let plain = marker::without_markers(text).to_lowercase();
    for word in plain
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        add(&mut sums, &format!("w {word}"), 1.0);
        let padded: Vec<char> = std::iter::once('^')
            .chain(word.chars())
            .chain(std::iter::once('$'))
            .collect();
        for trigram in padded.windows(3) {
            add(
                &mut sums,
                &trigram.iter().collect::<String>(),
                TRIGRAM_WEIGHT,
            );
        }
    }
    let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
    if length == 0.0 {
        sums[0] = 1.0;
        return sums.into_iter().map(|sum| sum as f32).collect();
    }
    sums.into_iter().map(|sum| (sum / length) as f32).collect()
}

/// Adds a feature at the place its hash says, with the sign its hash says: signs keep features
/// that collide from making unrelated texts look alike.
fn add(sums: &mut [f64], feature: &str, weight: f64) {
    // FNV mixes its low bits badly for short inputs; one multiply-shift round spreads them.
    let mixed = reply::hash(feature.as_bytes()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = mixed ^ (mixed >> 29);
    let length = sums.len() as u64;
    let index = usize::try_from((mixed >> 8) % length).unwrap_or(0);
    sums[index] += if mixed & 1 == 0 { weight } else { -weight };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(left: &str, right: &str) -> f64 {
        let (left, right) = (embed(left, 1_024), embed(right, 1_024));
        left.iter()
            .zip(&right)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    }

    #[test]
    fn same_text_same_vector() {
        assert_eq!(
            embed("Gagal login ke SIPD", 64),
            embed("gagal LOGIN ke sipd!", 64)
        );
        let length: f64 = embed("abc def", 300)
            .iter()
            .map(|x| f64::from(*x).powi(2))
            .sum();
        assert!((length - 1.0).abs() < 1e-6);
        assert_eq!(embed("…", 3), [1.0, 0.0, 0.0]);
        assert_eq!(embed("x", 7).len(), 7);
    }

    #[test]
    fn similar_texts_are_near() {
        let question = "tidak bisa login ke aplikasi SIPD";
        let near = cosine(question, "gagal login aplikasi SIPD");
        let stem = cosine("laporan keuangan", "pelaporan keuangannya");
        let far = cosine(question, "jadwal cuti bersama tahun depan");
        assert!(
            near > 0.4 && stem > 0.3 && far < 0.15,
            "{near} {stem} {far}"
        );
    }
}
