"""The style sheet of a search's page, for light and dark mode, wide and narrow screens, and print."""

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --raised: #f6f8fa; --ink: #1b1f24; --quiet: #57606a; --rule: #d8dee4;
  --good: #1a7f37; --bad: #b42318; --open: #57606a; --note: #8a5a00; --alarm: #fff0ee; }
@media (prefers-color-scheme: dark) { :root { --ground: #0d1117; --raised: #161b22; --ink: #e6edf3; --quiet: #9aa4af;
  --rule: #30363d; --good: #4cc46a; --bad: #ff8078; --open: #9aa4af; --note: #e0b050; --alarm: #3c1513; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
.kicker { margin: 0; color: var(--quiet); font-size: .85rem; letter-spacing: .06em; text-transform: uppercase; }
h1 { margin: 0 0 .4rem; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
header:not(:first-child) { margin-top: 4rem; border-top: 3px solid var(--rule); padding-top: 2rem; }
h2 { margin: 2.6rem 0 .8rem; font-size: 1.25rem; border-bottom: 1px solid var(--rule); padding-bottom: .3rem; }
h3 { margin: 1.4rem 0 .4rem; font-size: 1rem; }
.line, .small { color: var(--quiet); font-size: .875rem; }
.small { margin: .5rem 0 1rem; max-width: 54rem; }
.alarm { margin: 1.2rem 0; padding: .9rem 1.1rem; background: var(--alarm); border: 2px solid var(--bad);
  border-left-width: 10px; border-radius: 6px; font-weight: 600; }
.alarm p { margin: 0; }
.alarm p + p { margin-top: .6rem; }
.verdicts { list-style: none; margin: 1.2rem 0; padding: 0; }
.verdicts li { display: grid; grid-template-columns: 6.2rem 1fr; gap: .9rem; padding: .65rem 0;
  border-top: 1px solid var(--rule); }
.verdicts li:last-child { border-bottom: 1px solid var(--rule); }
.tag { justify-self: start; align-self: start; padding: .05rem .6rem; border: 1.5px solid currentColor; border-radius: 1rem;
  font-size: .8rem; font-weight: 700; white-space: nowrap; }
.better .tag { color: var(--good); } .worse .tag { color: var(--bad); }
.open .tag, .early .tag { color: var(--open); } .note .tag { color: var(--note); }
.note { color: var(--quiet); font-size: .92rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { color: var(--quiet); font-weight: 600; font-size: .8rem; vertical-align: bottom; border-bottom: 2px solid var(--rule); }
th, td { padding: .38rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
th.text, td.text { text-align: left; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--ground); }
tbody tr + tr td { border-top: 1px solid var(--rule); }
details { margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; padding: .25rem 0; }
figure { margin: .8rem 0; padding: .7rem .9rem .9rem; background: var(--raised); border: 1px solid var(--rule);
  border-radius: 8px; }
figcaption { font-size: .85rem; font-weight: 600; margin-bottom: .5rem; }
figure svg { display: block; max-width: none; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1rem; }
.pair figure { margin: .4rem 0; }
.pair svg { width: 100%; height: auto; max-width: 520px; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .82rem; margin: .4rem 0 .8rem; }
.key { display: inline-flex; align-items: center; gap: .4rem; white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--raised); padding: .7rem;
  border-radius: 6px; font-size: .8rem; }
@media (max-width: 600px) { main { padding: 1.2rem .9rem 3rem; } h1 { font-size: 1.5rem; }
  .verdicts li { grid-template-columns: 1fr; gap: .35rem; } td.text { white-space: normal; min-width: 6rem; } }
@media print { details > * { display: block; } .scroll { overflow: visible; } }
"""
