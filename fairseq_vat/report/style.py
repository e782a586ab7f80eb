"""The page's style sheet: one column, system fonts, light and dark, nothing from elsewhere."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --ink: #1b2026; --soft: #59636e; --line: #dde2e7; --panel: #f5f7f9;
  --blue: #0072b2; --orange: #c8510a; --green: #00805d; --quiet: #9aa3ac; --link: #0b62a4;
  --new: #d6ebfa; --new-line: #0072b2; --warn: #fff1e2; --warn-line: #c8510a;
  --ramp1: #d55e00; --ramp2: #b07a4a; --ramp3: #7f858b; --ramp4: #4a7fa8; --ramp5: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14181c; --ink: #e4e8ec; --soft: #9ca7b1; --line: #2e363e; --panel: #1c2228;
    --blue: #5cb8ee; --orange: #f29a4a; --green: #43c59e; --quiet: #6d7882; --link: #7cc4f2;
    --new: #17405c; --new-line: #5cb8ee; --warn: #3a2612; --warn-line: #f29a4a;
    --ramp1: #ff9d57; --ramp2: #d6ab84; --ramp3: #aeb4ba; --ramp4: #86bfe6; --ramp5: #4fb0ea;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0 auto; max-width: 48rem; padding: 1.25rem 1rem 4rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  overflow-wrap: anywhere;
}
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; line-height: 1.25; margin: 3rem 0 .6rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
p { margin: .6rem 0; }
a { color: var(--link); }
.kicker { color: var(--soft); font-size: .875rem; margin: 0 0 .5rem; }
.lead { color: var(--soft); margin: 0 0 1rem; }
.note { color: var(--soft); font-size: .9rem; }
.warning { background: var(--warn); border-left: 4px solid var(--warn-line);
  padding: .75rem 1rem; margin: 1rem 0; border-radius: 0 6px 6px 0; }
nav ol { margin: .5rem 0 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: .4rem .5rem; }
nav a { display: block; padding: .35rem .75rem; border: 1px solid var(--line);
  border-radius: 999px; text-decoration: none; font-size: .9rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.25rem, 1fr));
  gap: .6rem; margin: 1rem 0; padding: 0; }
.cards div { background: var(--panel); border-radius: 8px; padding: .65rem .8rem; }
.cards dt { color: var(--soft); font-size: .84rem; line-height: 1.3; }
.cards dd { margin: .15rem 0 0; font-size: 1.3rem; font-weight: 650; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.cards dd small { display: block; color: var(--soft); font-size: .8rem; font-weight: 400;
  line-height: 1.35; }
.facts { display: grid; grid-template-columns: minmax(6.5rem, max-content) 1fr; margin: 1rem 0; }
.facts dt, .facts dd { margin: 0; padding: .4rem 0; border-bottom: 1px solid var(--line); }
.facts dt { color: var(--soft); padding-right: 1rem; }
figure { margin: 1rem 0; }
figcaption { color: var(--soft); font-size: .9rem; }
.pictures { display: grid; gap: 1rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
svg { display: block; width: 100%; height: auto; color: var(--ink); }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { fill: currentColor; font-family: inherit; }
.map svg { max-width: 34rem; margin: 0 auto; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { padding: .35rem .3rem; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: bottom; overflow-wrap: break-word; hyphens: auto; }
th:first-child { text-align: left; }
thead th { font-weight: 600; line-height: 1.25; }
tbody th { font-weight: 400; }
.example { background: var(--panel); border-radius: 8px; padding: .7rem .9rem; margin: .8rem 0; }
.example p { margin: .3rem 0; }
.example .label { color: var(--soft); font-size: .84rem; margin: 0; display: flex;
  justify-content: space-between; gap: 1rem; }
.example ol, .example ul { margin: .4rem 0 0; padding-left: 1.1rem; }
.example li { margin: .3rem 0; }
.example li::marker { color: var(--soft); font-size: .84rem; }
.steps { list-style: none; padding-left: 0 !important; }
.steps li { display: grid; grid-template-columns: 3rem 1fr; }
.steps span.step { color: var(--soft); font-variant-numeric: tabular-nums; font-size: .84rem;
  padding-top: .15rem; }
ins { background: var(--new); text-decoration: underline var(--new-line);
  text-decoration-thickness: 2px; text-underline-offset: 3px; border-radius: 3px; padding: 0 .1em; }
del { color: var(--soft); text-decoration: line-through; }
.number { display: inline-block; min-width: 1.5em; padding: 0 .35em; border-radius: 999px;
  background: var(--ink); color: var(--page); font-size: .8rem; font-weight: 650;
  text-align: center; line-height: 1.5em; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line);
  color: var(--soft); font-size: .9rem; }
@media print {
  body { max-width: none; }
  nav { display: none; }
  .example, figure, .cards div { break-inside: avoid; }
}
"""
