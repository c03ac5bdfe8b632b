"""The lang folder: tokens.txt, lexicon.txt, words.txt, from a pronunciation lexicon or from BPE."""

from pathlib import Path

from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang import lexicon as lexicons
from asrcompress.lang.lexicon import Lexicon
from asrcompress.lang.tokens import BLANK, write_symbols


def write_lang(out: Path, lexicon: Lexicon) -> None:
    """Write the three files; token 0 is the blank, words end with kaldi's `#0`, `<s>`, `</s>`."""
    lexicons.write(out / "lexicon.txt", lexicon)
    write_symbols(out / "tokens.txt", [BLANK, *lexicons.tokens_of(lexicon)])
    write_symbols(out / "words.txt", ["<eps>", *sorted(lexicon), "#0", "<s>", "</s>"])


def phone_lang(out: Path, lexicon: Path, strip_stress: bool = True) -> Lexicon:
    """Phone tokens, from a lexicon file; writes OUT/{tokens,lexicon,words}.txt and returns the lexicon.

    Entries of silence and noise (`<...>`, `!SIL`) are no words and are left out. Errors: UserError of `lexicon.read`.
    """
    words = lexicons.spoken(lexicons.read(lexicon, strip_stress))
    write_lang(out, words)
    return words


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
