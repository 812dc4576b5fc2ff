"""TDFNet (Zhao et al., IEEE/ACM TASLP 2023)."""
