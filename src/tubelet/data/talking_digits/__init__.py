"""Talking Digits: data that any machine can make for itself in seconds, as ordinary media files and manifests.

Real: the handwriting, 1,797 digits of 13 writers from scikit-learn's ``load_digits``. Synthetic: their motion, and the
voices, which eSpeak NG speaks (GPL-3, so it comes with the extra ``tubelet[demo]`` alone and runs in processes of its
own). Writers and voices of the "val" split never appear in "train".

=============  =================================  ===========================================  ==========
manifest       files                              label                                        classes
=============  =================================  ===========================================  ==========
digit.csv      PNG images                         the written digit                            10
motion.csv     mp4 videos                         the direction in which the digit moves       8
spoken.csv     wav files                          the spoken digit                             10
talking.csv    motion.csv's files, with sound     the digit, which is both seen and heard      10
duet.csv       mp4 videos with sound              spoken digit and direction; the digit that   80
                                                  is seen is another draw and tells nothing
=============  =================================  ===========================================  ==========

Every file also has a caption in the manifest's ``text`` column.
"""

from tubelet.data.talking_digits.make import make
from tubelet.data.talking_digits.plan import Parameters

__all__ = ["Parameters", "make"]
