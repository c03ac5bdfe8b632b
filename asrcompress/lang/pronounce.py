def guess(lexicon, words):
    return {}
