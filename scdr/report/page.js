"use strict";

// Tables: a click on a head sorts by its column, another one turns the order round.
function valueOf(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace("−", "-"));
  return { text, number };
}

function sortBy(head) {
  const table = head.closest("table");
  const column = head.cellIndex;
  const descending = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = Array.from(table.tBodies[0].rows);
  rows.sort((one, other) => {
    const a = valueOf(one, column), b = valueOf(other, column);
    const numbers = !Number.isNaN(a.number) && !Number.isNaN(b.number);
    if (!numbers && Number.isNaN(a.number) !== Number.isNaN(b.number)) {
      return Number.isNaN(a.number) ? 1 : -1; // what is no number goes last, either way
    }
    const order = numbers ? a.number - b.number : a.text.localeCompare(b.text);
    return descending ? -order : order;
  });
  table.tBodies[0].append(...rows);
}

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}

// Landscapes: one at a time, all of a section on one scale, so that they can be compared.
const landscapes = JSON.parse(document.getElementById("surfaces").textContent);

function drawSurface(place, all, chosen) {
  const values = all.flatMap((surface) => surface.mae.flat());
  const top = Math.max(...values), bottom = Math.min(...values);
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue("--text"), line = style.getPropertyValue("--line");
  const axis = (title, more) => ({
    title: { text: title }, gridcolor: line, zerolinecolor: line, ...more,
  });
  const surface = all[chosen];
  Plotly.react(
    place,
    [{
      type: "surface", x: surface.zeta, y: surface.gamma, z: surface.mae,
      cmin: bottom, cmax: top, colorscale: "Cividis",
      colorbar: { title: { text: "MAE" }, thickness: 12, len: 0.7 },
      contours: { z: { show: true, usecolormap: true, project: { z: true } } },
      hovertemplate: "zeta %{x:.2f}, gamma %{y:.2f}: MAE %{z:.3f}<extra></extra>",
    }],
    {
      margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", font: { color: text },
      uirevision: "kept",
      scene: {
        xaxis: axis("zeta"), yaxis: axis("gamma"),
        zaxis: axis("test MAE", { range: [0, top * 1.02] }),
        camera: { eye: { x: 1.5, y: -1.5, z: 0.9 } },
      },
    },
    { responsive: true, displaylogo: false },
  );
}

const shown = [];
for (const place of document.querySelectorAll(".plot")) {
  const all = landscapes[place.dataset.section];
  const choice = place.parentElement.querySelector("select");
  const draw = () => drawSurface(place, all, Number(choice.value));
  choice.addEventListener("change", draw);
  draw();
  shown.push(draw);
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const draw of shown) draw();
});
