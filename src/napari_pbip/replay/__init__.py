"""Making the image bank, the models and the maps of a project again.

Nothing is recorded for this while the user works: a bank, a model and a map name the settings and the tiles or tissue
that they were made from. The commands that make them again are found from these records, written as a script for
people, and run as they are found; the script itself is never read.
"""

from napari_pbip.replay.copies import begin_replay
from napari_pbip.replay.script import SCRIPT, Command, Script, find_commands, replay_command

__all__ = ["SCRIPT", "Command", "Script", "begin_replay", "find_commands", "replay_command"]
