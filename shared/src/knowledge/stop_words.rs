//! Words that say how something is asked and not what.

use std::collections::HashSet;
use std::sync::LazyLock;

/// Of Indonesian, in whatever register.
const INDONESIAN: &str = "ada adakah adalah agar akan aku anda apa apakah apabila atau bagaimana bagaimanakah bagi bang \
    bapak bu buat caranya cara dalam dan dapat dari dengan di dong deh gimana gmn bgmn hai halo hello \
    hi hal ibu ini itu itulah jadi jika juga kak kakak kalau kalo kami kamu karena ke kenapa knp \
    kepada ketika kita klo kok lagi loh mah maaf mana mas mau mbak mengapa min admin minta mohon nih \
    nya oleh pada padahal pak para pas permisi pun saat saja saya sebagai sebuah selamat pagi siang \
    sore malam seperti serta siapa sih sudah supaya tapi tentang terima kasih makasih terus tetapi \
    tolong untuk waktu ya yaa yang yuk bantu bantuan bantuannya solusinya harus perlu ingin pengen \
    bisa bs";

/// Of English: the usual list for full text search, but for those that tell something of a fault (all, again,
/// no, not, same), and what is left of short forms.
const ENGLISH: &str = "the a an is are was were be been am i my me we our you your it its he she they their to of in on \
    at for from by with and or but how what why when where which who do does did can could should \
    would will shall may please help this that these those there have has had if so as after before \
    into than then s t re ve ll m d get any some about want need thanks hey myself ours ourselves \
    yours yourself yourselves him his himself her hers herself itself them theirs themselves whom \
    being having doing ought because until while against between through during above below up down \
    out off over under further once here both each few more most other such nor only own too very \
    although though still yet already also just every";

static ALL: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    let both = INDONESIAN.split(' ').chain(ENGLISH.split(' '));
    both.collect()
});

/// Whether a word, in lower case, tells nothing of what is asked.
pub(super) fn is_stop_word(word: &str) -> bool {
    ALL.contains(word)
}
