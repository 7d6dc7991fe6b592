//! How the writer feels, by a lexicon with negation and intensity. A report that something does not work
//! is no bad mood by itself: the words of a fault weigh little, those of an emotion much.

use super::Text;

/// Words and beginnings of words (`*`) with what each says, -1 to 1.
const LEXICON: &[(&str, f64)] = &[
    ("kecewa*", -0.8),
    ("mengecewakan", -0.9),
    ("marah", -0.8),
    ("kesal", -0.8),
    ("kesel", -0.8),
    ("jengkel*", -0.8),
    ("sebal", -0.7),
    ("sebel", -0.7),
    ("parah", -0.7),
    ("buruk", -0.7),
    ("jelek", -0.6),
    ("payah", -0.8),
    ("bodoh", -0.9),
    ("goblok", -1.0),
    ("tolol", -1.0),
    ("anjing", -1.0),
    ("bangsat", -1.0),
    ("sampah", -0.9),
    ("ampas", -0.8),
    ("muak", -0.9),
    ("capek", -0.5),
    ("cape", -0.5),
    ("lelah", -0.4),
    ("pusing", -0.4),
    ("stres*", -0.6),
    ("bosan", -0.4),
    ("percuma", -0.7),
    ("mubazir", -0.5),
    ("merugikan", -0.7),
    ("rugi", -0.5),
    ("menyusahkan", -0.7),
    ("ribet", -0.5),
    ("ruwet", -0.4),
    ("menyebalkan", -0.9),
    ("keterlaluan", -0.9),
    ("memalukan", -0.8),
    ("ngawur", -0.6),
    ("hancur", -0.6),
    ("becus", -0.5),
    ("lambat", -0.3),
    ("lemot", -0.4),
    ("lelet", -0.4),
    ("lama", -0.2),
    ("gagal", -0.15),
    ("error", -0.15),
    ("rusak", -0.2),
    ("hilang", -0.2),
    ("salah", -0.1),
    ("terus", -0.1),
    ("melulu", -0.3),
    ("mulu", -0.3),
    ("komplain", -0.5),
    ("protes", -0.5),
    ("lapor*kan", -0.1),
    ("rugi*", -0.4),
    ("disappoint*", -0.8),
    ("angry", -0.8),
    ("furious", -1.0),
    ("frustrat*", -0.8),
    ("annoy*", -0.7),
    ("terrible", -0.9),
    ("awful", -0.9),
    ("horrible", -0.9),
    ("useless", -0.9),
    ("worst", -1.0),
    ("ridiculous", -0.8),
    ("unacceptable", -0.9),
    ("stupid", -0.9),
    ("hate", -0.9),
    ("bad", -0.6),
    ("slow", -0.3),
    ("broken", -0.3),
    ("fail*", -0.15),
    ("waste", -0.6),
    ("fed up", -0.9),
    ("sick of", -0.8),
    ("tired of", -0.7),
    ("complain*", -0.4),
    ("garbage", -0.9),
    ("rubbish", -0.8),
    ("terima kasih", 0.6),
    ("terimakasih", 0.6),
    ("makasih", 0.6),
    ("trims", 0.5),
    ("thanks", 0.6),
    ("thank", 0.6),
    ("mantap", 0.8),
    ("bagus", 0.7),
    ("baik", 0.4),
    ("hebat", 0.8),
    ("keren", 0.8),
    ("senang", 0.7),
    ("puas", 0.8),
    ("membantu", 0.6),
    ("terbantu", 0.7),
    ("berhasil", 0.6),
    ("lancar", 0.6),
    ("cepat", 0.4),
    ("jelas", 0.3),
    ("oke", 0.3),
    ("ok", 0.2),
    ("sip", 0.5),
    ("sukses", 0.6),
    ("ramah", 0.6),
    ("suka", 0.5),
    ("great", 0.8),
    ("good", 0.6),
    ("excellent", 0.9),
    ("perfect", 0.9),
    ("love", 0.8),
    ("happy", 0.7),
    ("works", 0.4),
    ("solved", 0.6),
    ("helpful", 0.7),
    ("awesome", 0.9),
    ("nice", 0.6),
    ("appreciate", 0.6),
    ("satisfied", 0.8),
];
/// What turns the word after it, or the one after that.
const NEGATIONS: &[&str] = &[
    "tidak", "tak", "tdk", "ga", "gak", "gk", "nggak", "ngga", "enggak", "bukan", "belum", "blm",
    "jangan", "tanpa", "kurang", "not", "no", "never", "isn", "wasn", "doesn", "don", "didn",
    "cannot", "can", "t", "hardly",
];
const STRONGER: &[&str] = &[
    "sangat",
    "banget",
    "bgt",
    "sekali",
    "amat",
    "terlalu",
    "benar",
    "bener",
    "sungguh",
    "paling",
    "very",
    "so",
    "really",
    "extremely",
    "totally",
    "absolutely",
    "too",
];

/// From -1 to 1; 0 where nothing tells.
#[must_use]
pub fn sentiment(text: &Text) -> f64 {
    let (mut sum, mut strongest) = (0.0_f64, 0.0_f64);
    for (phrase, value) in LEXICON {
        let Some(place) = place(text, phrase) else {
            continue;
        };
        let before = |back: usize| place.checked_sub(back).and_then(|at| text.words.get(at));
        let is = |list: &[&str], word: Option<&String>| {
            word.is_some_and(|word| list.contains(&word.as_str()))
        };
        let after = text.words.get(place + phrase.split(' ').count());
        let mut value = *value;
        // "tidak bagus" is bad; "tidak gagal" is no praise.
        if is(NEGATIONS, before(1)) || is(NEGATIONS, before(2)) {
            value = if value > 0.0 {
                -0.8 * value
            } else {
                -0.3 * value
            };
            // "ga becus" is an insult of its own.
            if *phrase == "becus" {
                value = -0.9;
            }
        }
        if is(STRONGER, before(1)) || is(STRONGER, after) {
            value *= 1.4;
        }
        sum += value;
        if value.abs() > strongest.abs() {
            strongest = value;
        }
    }
    if sum == 0.0 {
        return 0.0;
    }
    if sum < 0.0 {
        sum -= 0.1 * f64::from(u32::try_from(text.exclamations.min(3)).unwrap_or(0));
        sum -= if text.shouted { 0.2 } else { 0.0 };
    }
    // The strongest word sets the tone, the others lean on it.
    let value = 0.7 * strongest + 0.3 * sum;
    (value.clamp(-1.0, 1.0) * 100.0).round() / 100.0
}

/// Where a phrase begins among the words.
fn place(text: &Text, phrase: &str) -> Option<usize> {
    let parts: Vec<&str> = phrase.split(' ').collect();
    text.words.windows(parts.len()).position(|words| {
        words
            .iter()
            .zip(&parts)
            .all(|(word, part)| match part.strip_suffix('*') {
                Some(stem) => word.starts_with(stem),
                None => word == part,
            })
    })
}
