"use strict";
// Names of files and classes are inserted only as text. The content security policy blocks all other scripts.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const sprite = data.sprite && Object.assign(new Image(), { src: data.sprite.uri });
const canvas = $("image");
if (data.sprite) {
  canvas.width = data.sprite.width;
  canvas.height = data.sprite.height;
}

function show(group, row) {
  $("label").textContent = group.name;
  $("name").textContent = data.names[row];
  if (!sprite || !sprite.complete) return;
  const { width, height, columns } = data.sprite;
  canvas.hidden = false;
  canvas.getContext("2d").drawImage(
    sprite, (row % columns) * width, Math.floor(row / columns) * height, width, height, 0, 0, width, height,
  );
}

// Plotly interprets some tags and entities in text as markup
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const count = data.names.length;
const traces = data.groups.map((group) => ({
  // SVG: the WebGL of Plotly compiles code from text, which the content security policy blocks
  type: "scatter", mode: "markers", name: plain(group.name), x: group.x, y: group.y, hoverinfo: "none",
  marker: { color: group.color, size: count > 3000 ? 4 : 7, opacity: 0.75 },
}));

function layout() {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { showgrid: false, zeroline: false, showticklabels: false, showline: true, linecolor: line, mirror: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", dragmode: "pan",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink },
    margin: { l: 16, r: 16, t: 16, b: 16 }, showlegend: data.groups.length > 1,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: ink },
    legend: { itemsizing: "constant", ...(innerWidth < 640 ? { orientation: "h", y: -0.02 } : {}) },
    xaxis: axis, yaxis: { ...axis, scaleanchor: "x" },
  };
}

const config = { displaylogo: false, responsive: true, scrollZoom: true,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
Plotly.newPlot("chart", traces, layout(), config).then((chart) => {
  const pointed = (event) => {
    const { curveNumber, pointNumber } = event.points[0];
    show(data.groups[curveNumber], data.groups[curveNumber].rows[pointNumber]);
  };
  chart.on("plotly_hover", pointed);
  chart.on("plotly_click", pointed);
  document.documentElement.dataset.ready = "true";
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => Plotly.relayout("chart", layout()));
