// Puts the report on the page.

async function showReport() {
  try {
    metrics.push(...await readDeflated("metrics"));
  } catch (error) {
    byId("overview").append(emptyPlot(`this browser cannot unpack the data: ${error.message}`));
    return;
  }
  showOverview(byId("overview"));
  showCurves(byId("curves"));
  showBias(byId("bias"));
  showLengths(byId("lengths"));
  showConfig(byId("config"));
  showReader(byId("transcripts"), makeStore(await readDeflated("responses")));
  requestAnimationFrame(() => requestAnimationFrame(() => { // when the figures have found their height
    const place = RESPONSE_LINK.test(location.hash) ? "transcripts" : location.hash.slice(1);
    byId(place)?.scrollIntoView({behavior: "instant"});
    document.documentElement.dataset.ready = "true";
  }));
}

showReport();
