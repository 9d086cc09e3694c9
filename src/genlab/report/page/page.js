// Light or dark, and what is made when it is first looked at.

prepareTheme();
prepareTable();
lazily("curves", renderCurves);
lazily("samples", renderSamples);
lazily("tradeoff", renderTradeoff);
lazily("trials", renderSweeps);
lazily("settings", renderSettings);
requestAnimationFrame(() => setTimeout(() => performance.mark("interactive")));
