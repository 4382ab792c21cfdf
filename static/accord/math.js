// Mathematics: KaTeX is loaded when there is some. Formulas are strangers' text like all the rest: nothing is trusted
// (no links, no classes, no images), sizes are bounded here, and app.css keeps colours and overlaps out.

const OPTIONS = { trust: false, strict: false, maxExpand: 200, maxSize: 5 };

/** Set every formula in the element; true when there was one. */
export async function setMathematics(root) {
  const formulas = [...root.querySelectorAll(".math:not([data-tex])")];
  if (!formulas.length) return false;
  const { default: katex } = await import("../katex/katex.mjs");
  for (const formula of formulas) {
    const tex = formula.textContent;
    formula.dataset.tex = formula.title = tex; // what is hidden in a formula can still be read
    try {
      katex.render(tex, formula, { ...OPTIONS, displayMode: formula.classList.contains("display") });
    } catch {
      formula.textContent = tex; // it is not TeX
    }
  }
  return true;
}
