"""The lang folder: tokens.txt, lexicon.txt, words.txt, from a pronunciation lexicon or from BPE."""

from collections.abc import Sequence
from pathlib import Path

from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang import lexicon as lexicons
from asrcompress.lang import ngram
from asrcompress.lang.lexicon import Lexicon
from asrcompress.lang.tokens import BLANK, read_symbols, write_symbols


def write_lang(out: Path, lexicon: Lexicon, tokens: Sequence[str] = ()) -> None:
    """Write the three files; token 0 is the blank, words end with kaldi's `#0`, `<s>`, `</s>`.

    tokens: all of them by number, where the lexicon need not hold each.
    """
    lexicons.write(out / "lexicon.txt", lexicon)
    write_symbols(out / "tokens.txt", tokens or [BLANK, *lexicons.tokens_of(lexicon)])
    write_symbols(out / "words.txt", ["<eps>", *sorted(lexicon), "#0", "<s>", "</s>"])


def phone_lang(out: Path, lexicon: Path, strip_stress: bool = True) -> Lexicon:
    """Phone tokens, from a lexicon file; writes OUT/{tokens,lexicon,words}.txt and returns the lexicon.

    Entries of silence and noise (`<...>`, `!SIL`) are no words and are left out. Errors: UserError of `lexicon.read`.
    """
    words = lexicons.spoken(lexicons.read(lexicon, strip_stress))
    write_lang(out, words)
    return words


def frequent_lang(out: Path, lang: Path, arpa: Path, count: int) -> Lexicon:
    """A lang folder's `count` words of the highest 1-gram probability in an ARPA file, for small graphs.

    The tokens keep their numbers, so models stay what they were. Writes OUT/{tokens,lexicon,words}.txt and returns the
    lexicon. Errors: UserError where a file is none of these, or the ARPA file has none of the words.
    """
    known = lexicons.read(lang / "lexicon.txt")
    symbols = read_symbols(lang / "tokens.txt")
    found = [(float(fields[0]), fields[1]) for _, fields in ngram.ngrams(arpa, 1) if fields[1] in known]
    if not found:
        raise UserError(f"{arpa} has none of the {len(known)} words of {lang}/lexicon.txt; write both in the same case")
    kept = {word: known[word] for _, word in sorted(found, key=lambda one: (-one[0], one[1]))[:count]}
    write_lang(out, kept, list(symbols))
    return kept


def bpe_lang(out: Path, words: list[str], texts: list[str], size: int) -> Lexicon:
    """BPE tokens: a sentencepiece model of `size` pieces trained on `texts`, and each of `words` spelt with it.

    Writes OUT/bpe.model and the three files, and returns the lexicon. Errors: UserError where so many pieces cannot be
    made of the texts.
    """
    import sentencepiece

    with atomic(out / "bpe.model") as temporary:
        try:
            with temporary.open("wb") as stream:
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=iter(texts), model_writer=stream, vocab_size=size, model_type="bpe",
                    character_coverage=1.0, bos_id=-1, eos_id=-1, minloglevel=2)
        except RuntimeError as error:
            raise UserError(f"sentencepiece cannot make {size} BPE tokens from {len(texts)} training sentences "
                            f"({str(error).splitlines()[-1]}); choose another --vocab-size") from None
    model = sentencepiece.SentencePieceProcessor(model_file=str(out / "bpe.model"))
    spelt = {word: model.encode(word, out_type=str) for word in words}
    # Outside the lexicon stays a word with a character that no training sentence holds, or that a lexicon cannot hold.
    known = {word: [pieces] for word, pieces in spelt.items()
             if model.unk_id() not in model.encode(word) and lexicons.expressible(word, pieces)}
    write_lang(out, known)
    return known
