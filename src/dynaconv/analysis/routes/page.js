"use strict";
(function () {
  var data = JSON.parse(document.getElementById("data").textContent);
  var state = { image: -1, router: data.routers.length - 1, mode: "weight", label: -1, wrong: false };
  var SVG = "http://www.w3.org/2000/svg";

  function byId(id) { return document.getElementById(id); }

  function make(tag, properties, children) {
    var element = document.createElement(tag);
    Object.keys(properties || {}).forEach(function (name) {
      if (name === "style") { Object.keys(properties.style).forEach(function (key) { element.style[key] = properties.style[key]; }); }
      else if (name.indexOf("aria-") === 0 || name === "role" || name === "title") { element.setAttribute(name, properties[name]); }
      else { element[name] = properties[name]; }
    });
    (children || []).forEach(function (child) {
      if (child !== null) { element.append(child); }
    });
    return element;
  }

  function draw(tag, attributes, text) {
    var element = document.createElementNS(SVG, tag);
    Object.keys(attributes).forEach(function (name) { element.setAttribute(name, attributes[name]); });
    if (text !== undefined) { element.textContent = text; }
    return element;
  }

  function fill(element, children) { element.replaceChildren.apply(element, children); }

  function keepCaption(id, children) {
    var figure = byId(id), caption = figure.querySelector("figcaption");
    fill(figure, [caption].concat(children));
  }

  function short(value, digits) { return value === null || value === undefined ? "-" : value.toFixed(digits === undefined ? 2 : digits); }

  /* White to blue for weights between 0 and 1; orange to white to blue for differences. */
  function colour(value, differs) {
    var share = Math.max(0, Math.min(1, Math.abs(value)));
    var to = differs && value < 0 ? [190, 80, 0] : [10, 79, 143];
    var parts = to.map(function (end) { return Math.round(255 + (end - 255) * share); });
    return { background: "rgb(" + parts.join(",") + ")", color: share > 0.5 ? "#fff" : "#1b1f24" };
  }

  function cell(value, title, differs, most, shown) {
    var look = colour(differs ? 2 * value : value, differs);
    return make("div", { className: most ? "cell most" : "cell", title: title, style: look }, [shown ? (differs && value > 0 ? "+" : "") + short(value) : ""]);
  }

  function largest(values) { return values.indexOf(Math.max.apply(null, values)); }

  /* The route of one image. */

  function visible() {
    return data.samples.map(function (sample, index) { return index; }).filter(function (index) {
      var sample = data.samples[index];
      return sample.picked && (state.label < 0 || sample.label === state.label) && (!state.wrong || sample.label !== sample.predicted);
    });
  }

  function showThumbnails() {
    var some = visible();
    if (some.length && some.indexOf(state.image) < 0) { state.image = some[0]; }
    fill(byId("thumbnails"), some.length ? some.map(function (index) {
      var sample = data.samples[index], name = data.classes[sample.label] + ": " + sample.name;
      var button = make("button", { type: "button", title: name, "aria-label": name, "aria-pressed": String(index === state.image) },
        [make("img", { src: sample.picture, alt: "" })]);
      button.addEventListener("click", function () { state.image = index; showThumbnails(); showRoute(); });
      return button;
    }) : [make("p", { className: "note" }, ["No such image among those that were put on this page."])]);
  }

  function showRoute() {
    var sample = data.samples[state.image];
    if (!sample) { return; }
    var right = sample.label === sample.predicted;
    fill(byId("picked"), [
      make("img", { src: sample.picture, alt: "the picked image" }),
      make("p", {}, [make("b", {}, [data.classes[sample.label]]), right ? ", predicted rightly" : ", predicted as " + data.classes[sample.predicted],
        make("br"), make("span", { className: "note" }, [sample.name])])
    ]);
    var differs = state.mode === "difference";
    fill(byId("steps"), data.routers.map(function (router, place) {
      var weights = sample.weights[place], most = largest(weights);
      var choose = make("button", { type: "button", title: router.layers.join(", ") }, [router.name]);
      choose.addEventListener("click", function () { chooseRouter(place); byId("one").scrollIntoView(); });
      return make("div", { className: "step" }, [
        make("div", { className: "name" }, [choose]),
        make("div", { className: "cells" }, weights.map(function (weight, expert) {
          var value = differs ? weight - router.mean[expert] : weight;
          return cell(value, "expert " + expert + ": " + short(weight, 3) + ", mean " + short(router.mean[expert], 3), differs, expert === most, weights.length <= 10);
        }))
      ]);
    }));
  }

  /* All routers. */

  function meter(value) {
    if (value === null) { return make("span", {}, ["-"]); }
    var width = Math.round(100 * Math.max(0, Math.min(1, value))) + "%";
    return make("span", {}, [make("span", { className: "meter" }, [make("i", { style: { width: width } })]), short(value)]);
  }

  function showOverview() {
    var head = ["routing of", "router", "K", "input", "entropy", "class share", "dead", "twins"];
    var rows = data.routers.map(function (router, place) {
      var choose = make("button", { type: "button", title: router.layers.join(", ") }, [router.name]);
      choose.addEventListener("click", function () { chooseRouter(place); byId("one").scrollIntoView(); });
      return make("tr", { className: place === state.router ? "chosen" : "" }, [
        make("td", {}, [choose]), make("td", {}, [router.router]), make("td", {}, [String(router.experts)]), make("td", {}, [router.size]),
        make("td", {}, [meter(router.entropy)]), make("td", {}, [meter(router.class_share)]),
        make("td", {}, [router.dead.join(", ") || "-"]), make("td", {}, [router.twins ? String(router.twins) : "-"])
      ]);
    });
    fill(byId("overview"), [make("thead", {}, [make("tr", {}, head.map(function (word) { return make("th", {}, [word]); }))]), make("tbody", {}, rows)]);
  }

  /* One router. */

  function chooseRouter(place) { state.router = place; byId("router").value = String(place); showOverview(); showRouter(); }

  function highest(rows) {
    return Math.max.apply(null, rows.map(function (row) { return Math.max.apply(null, row.map(Number)); })) || 1;
  }

  /* Colours go up to `most`, the numbers stay what they are. */
  function matrix(rows, columns, values, differs, labelWidth, most) {
    var grid = make("div", { className: "grid", style: { gridTemplateColumns: labelWidth + " repeat(" + columns.length + ", minmax(0, 1fr))" } }, []);
    grid.append(make("div"));
    columns.forEach(function (name) { grid.append(make("div", { className: "head" }, [name])); });
    rows.forEach(function (name, row) {
      grid.append(make("div", { className: "label", title: name }, [name]));
      columns.forEach(function (column, place) {
        var value = values[row][place];
        grid.append(value === null ? make("div", { className: "cell" }, ["-"]) : cell(differs ? value / 2 : value / (most || 1), name + ", " + column + ": " + short(value, 3), differs, false, false));
        if (value !== null && columns.length <= 10) { grid.lastChild.textContent = short(value); }
      });
    });
    return grid;
  }

  function showMeans(router) {
    var experts = router.mean.map(function (mean, expert) { return String(expert); });
    if (!router.class_mean) { keepCaption("means", [make("p", { className: "note" }, ["Left out of the page, which would be too large; see inspect.json."])]); return; }
    var some = data.classes.map(function (name, label) { return label; }).filter(function (label) { return data.class_images[label] > 0; });
    if (some.length > 40) {
      some = some.map(function (label) {
        var far = router.class_mean[label].reduce(function (sum, mean, expert) { return sum + Math.pow(mean - router.mean[expert], 2); }, 0);
        return [far, label];
      }).sort(function (one, two) { return two[0] - one[0]; }).slice(0, 40).map(function (pair) { return pair[1]; });
    }
    var note = some.length < data.classes.length ? [make("p", { className: "note" }, [some.length + " of " + data.classes.length + " classes: those farthest from the mean"])] : [];
    keepCaption("means", [matrix(some.map(function (label) { return data.classes[label]; }), experts, some.map(function (label) { return router.class_mean[label]; }), false, "7.5rem", highest(router.class_mean))].concat(note));
  }

  function axes(svg, left, right, top, bottom, low, high, name) {
    [0, 0.25, 0.5, 0.75, 1].forEach(function (share) {
      var y = bottom - share * (bottom - top), value = low + share * (high - low);
      svg.append(draw("line", { x1: left, x2: right, y1: y, y2: y, stroke: "#e0e4e8" }));
      svg.append(draw("text", { x: left - 5, y: y + 4, "text-anchor": "end" }, high >= 4 ? String(Number(value.toFixed(1))) : value.toFixed(2)));
    });
    if (name) { svg.append(draw("text", { x: right, y: bottom + 30, "text-anchor": "end" }, name)); }
  }

  /* The next number of which a quarter is easy to read. */
  function nice(value) {
    var unit = Math.pow(10, Math.floor(Math.log10(value)));
    return unit * ([1, 2, 4, 6, 8].filter(function (times) { return times * unit >= value; })[0] || 10);
  }

  function showHistogram(router) {
    var svg = draw("svg", { viewBox: "0 0 420 230", role: "img" }), bins = router.histogram, total = bins.reduce(function (a, b) { return a + b; }, 0) || 1;
    var most = nice(Math.max.apply(null, bins) / total * 100 || 1), width = 360 / bins.length;
    axes(svg, 48, 408, 10, 185, 0, most, "routing weight");
    svg.append(draw("text", { x: 48, y: 222 }, "percent of the weights" + (router.outside ? "; " + router.outside + " outside of 0 to 1" : "")));
    bins.forEach(function (count, place) {
      var height = count / total * 100 / most * 175;
      svg.append(draw("rect", { x: 48 + place * width, y: 185 - height, width: Math.max(1, width - 1), height: height, fill: "#0a4f8f" }));
    });
    [0, 0.25, 0.5, 0.75, 1].forEach(function (value) { svg.append(draw("text", { x: 48 + value * 360, y: 200, "text-anchor": "middle" }, String(value))); });
    keepCaption("histogram", [svg]);
  }

  var spreadOf = null;

  function showSpread(router) {
    if (!router.class_mean) { keepCaption("spread", []); return; }
    var some = data.classes.map(function (name, label) { return label; }).filter(function (label) { return data.class_images[label] > 0; });
    if (spreadOf === null) { spreadOf = [some[0], some[Math.floor(some.length / 2)]]; }
    var looks = [["#0a4f8f", -1], ["#d55e00", 1]], experts = router.experts, step = 360 / experts;
    var tops = [0.01];
    spreadOf.forEach(function (label) { router.class_mean[label].forEach(function (mean, expert) { tops.push(mean + (router.class_deviation[label][expert] || 0)); }); });
    var high = nice(Math.max.apply(null, tops));
    var svg = draw("svg", { viewBox: "0 0 420 230", role: "img" });
    axes(svg, 48, 408, 10, 185, 0, high, "expert");
    spreadOf.forEach(function (label, which) {
      var look = looks[which];
      router.class_mean[label].forEach(function (mean, expert) {
        var x = 48 + (expert + 0.5) * step + look[1] * Math.min(6, step / 5), deviation = router.class_deviation[label][expert];
        var y = function (value) { return 185 - Math.max(0, value) / high * 175; };
        if (deviation !== null) { svg.append(draw("line", { x1: x, x2: x, y1: y(mean - deviation), y2: y(mean + deviation), stroke: look[0], "stroke-width": 2 })); }
        svg.append(which ? draw("rect", { x: x - 4, y: y(mean) - 4, width: 8, height: 8, fill: look[0] }) : draw("circle", { cx: x, cy: y(mean), r: 4.5, fill: look[0] }));
      });
    });
    router.mean.forEach(function (mean, expert) {
      if (experts <= 16 || expert % 4 === 0) { svg.append(draw("text", { x: 48 + (expert + 0.5) * step, y: 200, "text-anchor": "middle" }, String(expert))); }
    });
    var selects = spreadOf.map(function (label, which) {
      var select = make("select", { "aria-label": "class" }, some.map(function (one) { return make("option", { value: String(one), selected: one === label }, [data.classes[one]]); }));
      select.addEventListener("change", function () { spreadOf[which] = Number(select.value); showSpread(router); });
      return make("label", { style: { color: looks[which][0] } }, [which ? "\u25a0 " : "\u25cf ", select]);
    });
    keepCaption("spread", [make("div", { className: "bar" }, selects), svg]);
  }

  function showSimilarity(router) {
    var layers = Object.keys(router.similarity);
    if (!layers.length) { keepCaption("similarity", [make("p", { className: "note" }, ["No layer with a bank of its own uses this router."])]); return; }
    var names = router.mean.map(function (mean, expert) { return String(expert); });
    byId("similarity").className = layers.length > 1 ? "whole" : "";
    keepCaption("similarity", [make("div", { className: "matrices" }, layers.map(function (layer) {
      var name = layers.length > 1 ? make("p", { className: "note" }, [layer]) : null;
      return make("div", {}, [name, matrix(names, names, router.similarity[layer], true, "2rem")]);
    }))]);
  }

  function showExperts(router) {
    var last = data.routers[data.routers.length - 1], shown = router === last;
    byId("exemplars").textContent = shown ? "With the mean weight, and the image of the class that has the largest weight." :
      "With the mean weight. Images are on the page for the last router (" + last.name + ") alone; inspect.json names all.";
    fill(byId("experts"), router.top_classes.map(function (tops, expert) {
      return make("div", { className: "expert" }, [
        make("div", {}, [make("b", {}, ["expert " + expert]), make("span", { className: "note" }, ["mean " + short(router.mean[expert])])]),
        make("div", { className: "tops" }, tops.map(function (top) {
          var sample = shown ? data.samples[top.sample] : null;
          return make("div", { className: "top", title: data.classes[top.label] + ", largest weight " + short(top.weight) },
            [sample ? make("img", { src: sample.picture, alt: "" }) : null, data.classes[top.label] + " " + short(top.mean)]);
        }))
      ]);
    }));
  }

  function showRouter() {
    var router = data.routers[state.router];
    var layers = router.layers.length ? router.layers.join(", ") : "no layer of ours";
    byId("about").textContent = "Used by " + layers + ". " + router.router + ", " + router.experts + " experts, input " + router.size + ", entropy " + short(router.entropy) + " \u00b1 " + short(router.entropy_deviation) +
      ", class share " + short(router.class_share) + ", mutual information of class and favourite expert " + short(router.mutual_information) + ".";
    showMeans(router); showHistogram(router); showSpread(router); showSimilarity(router); showExperts(router);
  }

  function showInterventions() {
    if (!data.tables.length) { byId("interventions").remove(); return; }
    fill(byId("tables"), data.tables.map(function (table) {
      return make("div", { className: "scroll" }, [make("table", {}, [
        make("thead", {}, [make("tr", {}, table.header.map(function (word) { return make("th", {}, [word]); }))]),
        make("tbody", {}, table.rows.map(function (row) { return make("tr", {}, row.map(function (text) { return make("td", {}, [text]); })); }))
      ])]);
    }));
  }

  function begin() {
    var labels = [];
    data.samples.forEach(function (sample) { if (sample.picked && labels.indexOf(sample.label) < 0) { labels.push(sample.label); } });
    fill(byId("filter"), [make("option", { value: "-1" }, ["all"])].concat(labels.map(function (label) { return make("option", { value: String(label) }, [data.classes[label]]); })));
    byId("filter").addEventListener("change", function () { state.label = Number(byId("filter").value); showThumbnails(); showRoute(); });
    byId("wrong").addEventListener("change", function () { state.wrong = byId("wrong").checked; showThumbnails(); showRoute(); });
    byId("mode").addEventListener("change", function () { state.mode = byId("mode").value; showRoute(); });
    fill(byId("router"), data.routers.map(function (router, place) { return make("option", { value: String(place) }, [router.name]); }));
    byId("router").addEventListener("change", function () { chooseRouter(Number(byId("router").value)); });
    showThumbnails(); showRoute(); chooseRouter(state.router); showInterventions();
    /* For tests: drawn to the end, and how wide the page is in how wide a window. */
    document.documentElement.setAttribute("data-ready", document.documentElement.scrollWidth + "/" + document.documentElement.clientWidth);
  }

  begin();
}());
