//! The page of an experiment in a real browser: Chromium without a window, spoken to by its debugging protocol over a
//! pipe.
//!
//! Where there is no Chromium they say so and do nothing; `make browser-deps` installs it. With
//! `MERGELAB_TEST_SCREENSHOTS=DIR` what is seen is kept there as pictures, to be looked at.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use serde_json::{Value, json};

use crate::project::Project;
use crate::report::{HOSTILE, PAGE, done, large};

/// How long the browser may take to answer.
const PATIENCE: Duration = Duration::from_mins(2);

/// One browser at a time: several would keep each other, and all other tests, waiting.
static TURN: Mutex<()> = Mutex::new(());

/// A browser with one page.
struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    last: u64,
    session: Option<String>,
    /// What it said of itself.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// The Chromium of this machine.
fn chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
    let path = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name))).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no Chromium here (`make browser-deps` installs it)");
    }
    found
}

impl Browser {
    /// Starts it; `None` where there is none.
    fn start() -> Option<Self> {
        let program = chromium()?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = tempfile::tempdir().unwrap();
        let (commands, to) = rustix::pipe::pipe().unwrap();
        let (from, answers) = rustix::pipe::pipe().unwrap();
        let mut command = Command::new(program);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let pipes = [(commands, 3), (answers, 4)];
        command.fd_mappings(pipes.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).into()).unwrap();
        let child = command.spawn().unwrap();
        // The child's ends are its own now, so that what it says ends with it.
        drop(command);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(File::from(from)).split(0).map_while(Result::ok) {
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
            }
        });
        let to = File::from(to);
        let mut browser = Self {
            child,
            to,
            from: receiver,
            last: 0,
            session: None,
            events: Vec::new(),
            _profile: profile,
            _turn: turn,
        };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session =
            Some(browser.call("Target.attachToTarget", &target)["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser.size(1280, 900);
        Some(browser)
    }

    /// Gives an order and waits for what comes of it.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let message = self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == self.last {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// What a script says.
    #[track_caller]
    fn eval(&mut self, script: &str) -> Value {
        let parameters = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let said = self.call("Runtime.evaluate", &parameters);
        assert!(said.get("exceptionDetails").is_none(), "{script}: {said}");
        said["result"]["value"].clone()
    }

    /// Waits until a script says something that is true.
    #[track_caller]
    fn until(&mut self, script: &str) {
        let start = Instant::now();
        while !self.eval(script).as_bool().unwrap_or_default() {
            assert!(start.elapsed() < PATIENCE, "never true: {script}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn size(&mut self, width: u32, height: u32) {
        let parameters = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &parameters);
    }

    /// The reader's setting: `light` or `dark`.
    fn scheme(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
    }

    /// Opens a project's page, and looks at all of it once.
    fn open(&mut self, project: &Project) {
        let place = fs::canonicalize(project.path(PAGE)).unwrap();
        let before = self.events.len();
        self.call("Page.navigate", &json!({ "url": format!("file://{}", place.display()) }));
        // Until then a script would be asked of the page before.
        while !self.events[before..].iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("loading: {error}"));
            self.events.push(event);
        }
        self.eval(
            "(async () => {
               for (let y = 0; y < document.documentElement.scrollHeight; y += 400) {
                 scrollTo(0, y);
                 await new Promise((next) => setTimeout(next, 20));
               }
               scrollTo(0, 0);
             })()",
        );
        self.until("[...document.querySelectorAll('.chart')].filter((chart) => chart.checkVisibility()).every((chart) => chart.querySelector('svg'))");
    }

    /// Where the middle of an element is in the window, into which it is moved.
    #[track_caller]
    fn middle(&mut self, element: &str) -> [f64; 2] {
        let place = self.eval(&format!(
            "(() => {{ const element = {element}; element.scrollIntoView({{ block: 'center' }}); const box = element.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        [0, 1].map(|i| place[i].as_f64().unwrap())
    }

    /// Moves the pointer over an element.
    #[track_caller]
    fn hover(&mut self, element: &str) -> [f64; 2] {
        let [x, y] = self.middle(element);
        self.call("Input.dispatchMouseEvent", &json!({ "type": "mouseMoved", "x": x - 2.0, "y": y }));
        self.call("Input.dispatchMouseEvent", &json!({ "type": "mouseMoved", "x": x, "y": y }));
        [x, y]
    }

    /// Clicks on an element.
    #[track_caller]
    fn click(&mut self, element: &str) {
        let [x, y] = self.hover(element);
        for kind in ["mousePressed", "mouseReleased"] {
            self.call(
                "Input.dispatchMouseEvent",
                &json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 }),
            );
        }
    }

    /// Presses a key.
    fn press(&mut self, key: &str, code: u32) {
        let text = if key == "Enter" { json!("\r") } else { Value::Null };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && text.is_string() {
                event["text"] = text.clone();
            }
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Keeps what is seen, where somebody asks for that.
    fn picture(&mut self, name: &str) {
        if let Some(dir) = std::env::var_os("MERGELAB_TEST_SCREENSHOTS") {
            let picture =
                self.call("Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": true }));
            let bytes = decoded(picture["data"].as_str().unwrap());
            fs::write(Path::new(&dir).join(format!("{name}.png")), bytes).unwrap();
        }
    }

    /// Checks that nothing went wrong, and that nothing was fetched beside the page.
    #[track_caller]
    fn has_no_problem(&mut self) {
        self.eval("1");
        let page = self.eval("location.href.split('#')[0]");
        let problem = |event: &Value| {
            let (method, params) = (event["method"].as_str()?, &event["params"]);
            let is_bad = |level: &Value| matches!(level.as_str(), Some("error" | "warning" | "assert"));
            match method {
                "Runtime.exceptionThrown" => Some(params.to_string()),
                "Runtime.consoleAPICalled" if is_bad(&params["type"]) => Some(params.to_string()),
                "Log.entryAdded" if is_bad(&params["entry"]["level"]) => Some(params.to_string()),
                "Network.requestWillBeSent" if params["request"]["url"] != page => {
                    Some(params["request"]["url"].to_string())
                }
                _ => None,
            }
        };
        let problems: Vec<String> = self.events.iter().filter_map(problem).collect();
        assert!(problems.is_empty(), "{problems:#?}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its own processes when it is asked to; one that hangs is ended.
        let _ = self.to.write_all(format!("{}\0", json!({ "id": 0, "method": "Browser.close" })).as_bytes());
        let start = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if start.elapsed() > Duration::from_secs(10) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Base64 without the padding's bytes.
fn decoded(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// The headings of rows, as they stand.
const ROWS: &str = "[...document.querySelectorAll('article.table > .scroll tbody th')].map((head) => head.textContent)";

/// The contrast of an element's text with what is behind it, as WCAG 2 has it.
const CONTRAST: &str = r"(element) => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\d.]+/g).map(Number).map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element;
  while (/, 0\)$|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  const [one, other] = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}";

#[test]
fn a_page_is_whole_and_says_nothing_wrong() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&done());
    let heads = browser.eval("[...document.querySelectorAll('h2')].map((head) => head.textContent)");
    assert_eq!(heads, json!(["Results", "Where models differ", "Inside the merges", "How it was made", "Provenance"]));
    // Two panels of bars, a sweep, layers and the timeline, each with something in it.
    let charts = browser.eval("[...document.querySelectorAll('.chart')].map((chart) => [chart.getBoundingClientRect().height > 60, chart.querySelectorAll('svg path, svg text').length > 5, chart.getAttribute('aria-label').length > 10])");
    assert_eq!(charts.as_array().unwrap().len(), 5);
    assert!(charts.as_array().unwrap().iter().all(|chart| *chart == json!([true, true, true])), "{charts}");
    let nodes =
        browser.eval("[...document.querySelectorAll('svg.graph a')].map((node) => node.getAttribute('aria-label'))");
    // Two models, two data sets, two captures, four merges, evaluations of six models, a table.
    assert_eq!(nodes.as_array().unwrap().len(), 17, "{nodes}");
    assert!(nodes[0].as_str().unwrap().contains("up to date"), "{nodes}");
    assert_eq!(browser.eval("document.querySelectorAll('article.document').length"), 3);
    browser.has_no_problem();
    browser.picture("light");
}

#[test]
fn no_text_of_an_experiment_runs_or_becomes_markup() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&done());
    for stage in 0..20 {
        browser.eval(&format!("location.hash = '#stage-{stage}'"));
        browser.until(&format!("document.querySelector('dialog').open && location.hash === '#stage-{stage}'"));
    }
    browser.eval("document.querySelector('dialog').close()");
    for cell in 0..12 {
        browser.click(&format!("document.querySelectorAll('[data-cell]')[{cell}]"));
        browser.eval("document.querySelector('dialog').close()");
    }
    for chart in 0..5 {
        browser.hover(&format!("document.querySelectorAll('.chart')[{chart}]"));
    }
    assert_eq!(browser.eval("typeof hacked"), "undefined");
    assert_eq!(
        browser.eval("document.querySelectorAll('img, iframe, object, embed').length + document.scripts.length"),
        3
    );
    assert_eq!(
        browser.eval("[...document.links].filter((link) => !link.getAttribute('href').startsWith('#')).length"),
        0
    );
    // A text is shown as it is, with what could rearrange a line made harmless.
    let start = &HOSTILE[..30];
    assert_eq!(
        browser.eval("document.querySelector('.lead').textContent").as_str().unwrap().trim_start_matches('\u{2068}')
            [..30],
        *start
    );
    // And what the policy does not name would not run either.
    browser.eval("(() => { const script = document.createElement('script'); script.textContent = 'hacked = 1'; document.body.append(script); })()");
    assert_eq!(browser.eval("typeof hacked"), "undefined");
}

#[test]
fn headings_sort_by_numbers_both_ways_and_back() {
    let Some(mut browser) = Browser::start() else { return };
    let project = done();
    browser.open(&project);
    let written = browser.eval(ROWS);
    let heading = "document.querySelectorAll('article.table thead button.sort')[1]";
    let sorted = "document.querySelector('article.table thead th:nth-child(2)').getAttribute('aria-sort')";
    let numbers = "[...document.querySelectorAll('article.table > .scroll tbody td:nth-child(2)')].map((cell) => parseFloat(cell.textContent))";
    let in_order = |numbers: &Value, down: bool| {
        let numbers: Vec<f64> = numbers.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
        numbers.windows(2).all(|pair| if down { pair[0] >= pair[1] } else { pair[0] <= pair[1] })
    };
    browser.click(heading);
    assert_eq!(browser.eval(sorted), "descending");
    assert!(in_order(&browser.eval(numbers), true));
    browser.click(heading);
    assert_eq!(browser.eval(sorted), "ascending");
    assert!(in_order(&browser.eval(numbers), false));
    browser.click(heading);
    assert_eq!((browser.eval(sorted), browser.eval(ROWS)), (Value::Null, written));
}

#[test]
fn a_number_leads_to_its_stage_by_pointer_and_by_keyboard() {
    let Some(mut browser) = Browser::start() else { return };
    let project = done();
    browser.open(&project);
    let keys: std::collections::HashMap<_, _> = project.keys().into_iter().collect();
    let key = keys["evals.suite/avg/add"].as_str().unwrap().to_owned();
    browser.click("document.querySelector('[data-cell=\"0-2-0\"]')");
    let text = browser.eval("document.querySelector('dialog[open]').textContent");
    for part in [
        "evals.suite/avg/add",
        &key,
        "lm_eval",
        "merges.avg",
        "weights",
        "models.a",
        "samples.jsonl.gz",
        "mergelab explain x.yaml --cell main avg 1",
        "lm_eval0.4.13",
    ] {
        assert!(text.as_str().unwrap().contains(part), "no {part:?}: {text}");
    }
    assert_eq!(browser.eval("location.hash"), "#cell-0-2-0");
    browser.press("Escape", 27);
    browser.until("!document.querySelector('dialog').open && location.hash === ''");

    // From the top of the page: past the first link, into the table, to a cell, and back to it.
    browser.press("Tab", 9);
    assert_eq!(
        browser.eval("document.activeElement.className"),
        "cell",
        "focus returned to the cell and went on to the next"
    );
    browser.press("Enter", 13);
    assert!(browser.eval("document.querySelector('dialog').open").as_bool().unwrap());
    browser.press("Escape", 27);
    assert_eq!(browser.eval("document.activeElement.dataset.cell"), "0-2-1");
    browser.eval("document.querySelector('article.table thead button.sort').focus()");
    browser.press("Enter", 13);
    assert_eq!(browser.eval("document.querySelector('article.table thead th').getAttribute('aria-sort')"), "ascending");
    browser.eval("document.querySelector('svg.graph a').focus()");
    browser.press("Enter", 13);
    assert!(
        browser.eval("document.querySelector('dialog[open] h2').textContent").as_str().unwrap().starts_with("models.")
    );
    browser.has_no_problem();
}

#[test]
fn charts_say_their_figures_under_the_pointer() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&done());
    let tip = |kind: &str| {
        format!("[...document.querySelectorAll('{kind} .chart .tip')].map((tip) => tip.textContent).join()")
    };
    browser.hover("document.querySelector('.bars .chart')");
    browser.until("!!document.querySelector('.bars .chart .tip')");
    assert!(browser.eval(&tip(".bars")).as_str().unwrap().contains('±'));
    browser.hover("document.querySelector('.sweep .chart')");
    browser.until("!!document.querySelector('.sweep .chart .tip')");
    assert!(browser.eval(&tip(".sweep")).as_str().unwrap().contains("alpha = 0.5"));
    browser.hover("document.querySelector('#layers-chart')");
    browser.until("!!document.querySelector('#layers-chart .tip')");
    assert!(
        browser
            .eval("document.querySelector('#layers-chart .tip').textContent")
            .as_str()
            .unwrap()
            .contains("Relative change")
    );
    let before = browser.eval("document.querySelector('#layers-chart svg').outerHTML");
    browser.eval("(() => { const figure = document.querySelector('#layers-figure'); figure.value = 'condition'; figure.dispatchEvent(new Event('change')); })()");
    assert!(
        browser
            .eval("document.querySelector('#layers-table caption').textContent")
            .as_str()
            .unwrap()
            .starts_with("Condition number")
    );
    browser.until(&format!("document.querySelector('#layers-chart svg').outerHTML !== {before}"));
    browser.has_no_problem();
}

#[test]
fn light_dark_narrow_and_paper_can_be_read() {
    let Some(mut browser) = Browser::start() else { return };
    let project = done();
    let readable = format!(
        "[...document.querySelectorAll('h1, h2, h3, p, dt, dd, td, th, summary, figcaption, a, button')].filter((element) => element.checkVisibility() && !element.matches('.skip') && element.textContent.trim()).map((element) => [({CONTRAST})(element), element.textContent.slice(0, 40)]).filter(([contrast]) => contrast < 4.5)"
    );
    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        browser.open(&project);
        assert_eq!(browser.eval(&readable), json!([]), "{scheme}");
        papers.push(browser.eval("getComputedStyle(document.body).backgroundColor"));
        browser.picture(scheme);
    }
    assert_ne!(papers[0], papers[1]);
    // The reader's own choice goes before the system's: dark, then light.
    let ink = "document.querySelector('.bars svg text').getAttribute('fill')";
    let dark = browser.eval(ink);
    browser.click("document.querySelector('#theme')");
    assert_eq!(browser.eval("getComputedStyle(document.body).backgroundColor"), papers[0]);
    assert_ne!(browser.eval(ink), dark, "charts follow");

    let pdf = browser.call("Page.printToPDF", &json!({ "printBackground": true }));
    let pdf = decoded(pdf["data"].as_str().unwrap());
    assert!(pdf.starts_with(b"%PDF") && pdf.len() > 30_000, "{} bytes", pdf.len());
    assert_eq!(browser.eval("document.documentElement.className"), "", "what paper needed is gone again");

    browser.size(390, 800);
    browser.open(&project);
    let width = browser.eval("document.documentElement.scrollWidth");
    assert!(width.as_u64().unwrap() <= 390, "wider than the window: {width}");
    browser.picture("narrow");
    browser.has_no_problem();
}

#[test]
fn twenty_models_on_ten_tasks_are_drawn() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&large());
    assert_eq!(browser.eval("document.querySelectorAll('.bars .chart svg').length"), 10);
    assert_eq!(browser.eval("document.querySelectorAll('svg.graph a').length"), 41);
    browser.has_no_problem();
    browser.picture("large");
}

#[test]
fn a_page_without_a_store_or_figures_is_a_page() {
    let Some(mut browser) = Browser::start() else { return };
    let project = done();
    project.lose_store();
    fs::remove_file(project.path("results/x/results.csv")).unwrap();
    project.mergelab(&["report", "x.yaml"]).exits(0);
    browser.open(&project);
    assert_eq!(browser.eval("document.querySelectorAll('svg.graph a.node').length"), 17);
    browser.has_no_problem();
}
