"""Recipes as Python: settings, stages with fingerprints, the sweep over models, decoding and device files.

`recipes/*/run.sh` names an experiment; `asrcompress recipe STAGE` runs one of its stages with the functions of this
package.
"""
