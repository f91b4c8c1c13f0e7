"""Query-based sound separation.

Shape letters used throughout: B batch, G masks sampled for one mixture (group), S sources,
C audio channel, N samples, F linear frequency bin, H log-frequency bin, T STFT frame,
K mask channel, D embedding, Q query. Sample rates in Hz, times in seconds, levels in dB.
"""
