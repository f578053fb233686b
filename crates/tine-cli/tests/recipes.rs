//! The recipes of `examples/`: every command line that a page there has is run, under the profile that it names, with a real client.
//!
//! Lines that begin with `$` are run as whoever runs the tests and, where that is root, as nobody too; those with `#` take root. Paths
//! beneath `/srv`, the port, and the user `git` are the only things that differ from what is written.

mod support;

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::{Folder, command, fed, need, run};
use tine_testkit::server::{listeners_among, tine_command};
use tine_testkit::{Ready, Server, Stream, binary};

/// All pages, and the function that lays out what each is about, and the client that tries it.
const PAGES: [(&str, Lay, Try); 7] = [
    ("git-daemon", lay_repository, clone_and_push),
    ("rsync-daemon", lay_trees, download_and_upload),
    ("busybox-httpd", lay_site, get),
    ("python-lines", lay_python, speak),
    ("perl-lines", lay_perl, speak),
    ("shell-words", lay_words, count_words),
    ("static-sum", lay_sum, sum),
];

type Lay = fn(&Page, &Folder);
type Try = fn(&Scene) -> Result<(), String>;

/// The number of the user and the group that ordinary programs run as here.
const NOBODY: u32 = 65534;

#[test]
fn git_daemon_is_cloned_from_and_pushed_to_as_its_page_says() {
    need("git", "git");
    all_lines_of("git-daemon");
}

#[test]
fn rsync_daemon_gives_and_takes_trees_as_its_page_says() {
    need("rsync", "rsync");
    all_lines_of("rsync-daemon");
}

#[test]
fn busybox_httpd_serves_files_as_its_page_says() {
    need("busybox", "busybox");
    need("curl", "curl");
    all_lines_of("busybox-httpd");
}

#[test]
fn a_python_program_answers_lines_as_its_page_says() {
    need("python3", "python3");
    all_lines_of("python-lines");
}

#[test]
fn a_perl_program_answers_lines_as_its_page_says() {
    need("perl", "perl");
    all_lines_of("perl-lines");
}

#[test]
fn a_shell_script_counts_words_as_its_page_says() {
    all_lines_of("shell-words");
}

#[test]
fn a_static_binary_sums_numbers_as_its_page_says() {
    need("gcc", "gcc");
    all_lines_of("static-sum");
}

#[test]
fn every_page_is_tried_here_and_has_lines_for_both_profiles() {
    let index = fs::read_to_string(examples().join("README.md")).expect("the index of the recipes");
    let mut found: Vec<String> = fs::read_dir(examples())
        .expect("the folder of the recipes")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".md")?.to_owned()))
        .filter(|name| name != "README")
        .collect();
    found.sort();
    let mut known = PAGES.map(|(name, _, _)| name);
    known.sort_unstable();
    assert_eq!(found, known);
    for name in known {
        assert!(index.contains(&format!("]({name}.md)")), "{name} is not in the index");
        let lines = Page::read(name).lines();
        for profile in ["guarded", "sealed"] {
            let of_profile = || lines.iter().filter(|line| line.profile() == profile);
            assert!(
                of_profile().any(|line| !line.takes_root),
                "{name}: for an ordinary user under {profile}"
            );
            assert!(of_profile().any(|line| line.takes_root), "{name}: as root under {profile}");
        }
    }
}

/// Runs each line of a page as each who may; and those with openings without them too, one by one, which must not do.
fn all_lines_of(name: &str) {
    let (_, lay, client) = *PAGES.iter().find(|(page, _, _)| *page == name).expect("a page that is known");
    let page = Page::read(name);
    for line in page.lines() {
        for who in line.by_whom() {
            let scene = Scene::new(&page, &line, &line, who, lay);
            client(&scene).unwrap_or_else(|why| panic!("{scene}: {why}\n{}", scene.server.log()));
            scene.end();
            for opening in line.openings() {
                let scene = Scene::new(&page, &line, &line.without(opening), who, lay);
                let outcome = client(&scene);
                assert!(outcome.is_err(), "{scene}: {opening} is not needed\n{}", scene.server.log());
                scene.end();
            }
        }
    }
}

// Pages

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

struct Page(String);

impl Page {
    fn read(name: &str) -> Page {
        let path = examples().join(format!("{name}.md"));
        Page(fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display())))
    }

    /// What is to be typed in: a prompt, and words.
    fn typed(&self) -> Vec<(char, &str)> {
        let blocks =
            self.0.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("console\n"));
        let lines = blocks.flat_map(str::lines);
        lines.filter_map(|line| Some((line.chars().next()?, line.get(2..)?))).collect()
    }

    /// The command lines of servers.
    fn lines(&self) -> Vec<Line> {
        let serve = |(prompt, text): (char, &str)| {
            let words = words(text.strip_prefix("tine serve ")?);
            Some(Line { takes_root: prompt == '#', words })
        };
        self.typed().into_iter().filter_map(serve).collect()
    }
}

/// The words of a line, as a shell would have them: single quotes hold together what is in them.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// A command line of a page, `tine serve` left out.
#[derive(Clone)]
struct Line {
    takes_root: bool,
    words: Vec<String>,
}

impl Line {
    fn value(&self, flag: &str) -> Option<&str> {
        let options = self.words.iter().take_while(|word| *word != "--");
        let at = options.clone().position(|word| word == flag)?;
        self.words.get(at + 1).map(String::as_str)
    }

    fn profile(&self) -> &str {
        self.value("--confine").unwrap_or("guarded")
    }

    fn is_sealed(&self) -> bool {
        self.profile() == "sealed"
    }

    /// Whether it lets clients upload: its settings do always, so that it is a matter of what is opened.
    fn takes_uploads(&self) -> bool {
        self.value("--write").is_some()
    }

    /// What it opens up. Where `guarded` is told what to read, that closes what is not named.
    fn openings(&self) -> Vec<&'static str> {
        let opens = |flag: &&str| self.value(flag).is_some();
        let flags: &[&str] = if self.is_sealed() { &["--read", "--write"] } else { &["--write"] };
        flags.iter().copied().filter(opens).collect()
    }

    fn without(&self, flag: &str) -> Line {
        let at = self.words.iter().position(|word| word == flag).expect("one of its openings");
        let mut words = self.words.clone();
        words.drain(at..at + 2);
        Line { words, ..*self }
    }

    /// rsync that finds itself root becomes somebody else, which takes a privilege; sealed it is never root. Its page says so.
    fn must_not_be_root(&self) -> bool {
        self.words.iter().any(|word| word == "rsync") && !self.is_sealed()
    }

    /// As whom it is run; says who is left out.
    fn by_whom(&self) -> Vec<Who> {
        let all = match (support::is_root(), self.takes_root) {
            (true, false) if self.must_not_be_root() => vec![Who::Nobody],
            (true, false) => vec![Who::Tester, Who::Nobody],
            (true, true) => vec![Who::Tester],
            (false, false) => vec![Who::Tester],
            (false, true) => {
                eprintln!("left out, for it takes root: tine serve {}", self.words.join(" "));
                vec![]
            }
        };
        let able = |who: &Who| {
            let able = !self.is_sealed() || who.may_make_users();
            if !able {
                eprintln!("left out, for it takes user namespaces: tine serve {}", self.words.join(" "));
            }
            able
        };
        all.into_iter().filter(able).collect()
    }
}

/// Who starts tine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    /// Whoever runs the tests.
    Tester,
    Nobody,
}

impl Who {
    /// A command that this one runs.
    fn runs(self, program: &Path) -> Command {
        if self == Who::Tester {
            return Command::new(program);
        }
        need("setpriv", "util-linux");
        let mut command = Command::new("setpriv");
        let who = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()];
        command.args(who).arg(program).current_dir("/");
        command
    }

    /// Whether it may make namespaces: root may, and others may where others may make those of users.
    fn may_make_users(self) -> bool {
        if self == Who::Tester && support::is_root() {
            return true;
        }
        let mut unshare = self.runs(Path::new("unshare"));
        unshare.args(["--user", "true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

// Servers

/// A server, for the client of a line. What it is served by may be another, with less opened.
struct Scene {
    server: Server,
    folder: Folder,
    line: Line,
    who: Who,
}

impl Scene {
    fn new(page: &Page, line: &Line, served: &Line, who: Who, lay: Lay) -> Scene {
        let folder = Folder::below(&place());
        lay(page, &folder);
        // Whatever the mask was that they were made with.
        run(command("chmod").args(["-R", "a+rX"]).arg(folder.file("srv")));
        if support::is_root() && (who == Who::Nobody || line.value("--user").is_some()) {
            run(command("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(folder.file("srv")));
        }
        let mut args: Vec<String> = served.words.iter().map(|word| here(word, &folder)).collect();
        args[0] = "127.0.0.1:0".into();
        let user = args.iter().position(|word| word == "--user");
        if let Some(user) = user.map(|at| &mut args[at + 1]).filter(|user| *user == "git") {
            *user = "nobody".into();
        }
        args.splice(1..1, ["-v", "--drain", "1"].map(str::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let serve = tine_command(&args);
        let command = match who {
            Who::Tester => serve,
            // The one that was built may lie where others cannot look.
            Who::Nobody => {
                let tine = folder.copy(binary("tine"), "tine");
                let mut command = who.runs(Path::new(&tine));
                command.args(serve.get_args());
                command
            }
        };
        let server = Server::start(command, Ready::Ports(listeners_among(&args)));
        let confined = format!(" confine={}", line.profile());
        server.wait_log(|line| line.starts_with("listen ") && line.ends_with(&confined));
        Scene { server, folder, line: line.clone(), who }
    }

    fn end(self) {
        assert!(self.server.stop().success());
    }

    fn port(&self) -> u16 {
        self.server.port(0)
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: tine serve {}", self.who, self.line.words.join(" "))
    }
}

/// Where the trees are that are served: not in /tmp, where whoever is sealed sees one of its own, and where others can look.
fn place() -> PathBuf {
    let ours = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let is_open = |folder: &Path| fs::metadata(folder).is_ok_and(|about| about.mode() & 0o001 != 0);
    let is_reached = !support::is_root() || ours.ancestors().all(is_open);
    if is_reached { ours.to_owned() } else { "/srv".into() }
}

/// A word of a page with the paths of this test.
fn here(text: &str, folder: &Folder) -> String {
    text.replace("/srv", &folder.text("srv")).replace("/etc/rsyncd.conf", &folder.text("srv/rsyncd.conf"))
}

/// A file that a page comes with, as it is.
fn example(name: &str) -> String {
    fs::read_to_string(examples().join(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
}

fn is_done(command: &mut Command) -> Result<Output, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|why| why.to_string())?;
    match output.status.success() {
        true => Ok(output),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn is_same<T: PartialEq + fmt::Debug>(got: T, expected: T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{got:?} instead of {expected:?}")) }
}

// Recipes

/// git without the settings of whoever runs the test, at repositories of whomever.
fn git(folder: &Path, args: &[&str]) -> Command {
    let mut git = command("git");
    git.arg("-C").arg(folder).args(["-c", "safe.directory=*"]).args(args);
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent");
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "A. Tester").env(format!("GIT_{who}_EMAIL"), "a@example.org");
    }
    git
}

/// Adds a file, and gives the name of the commit.
fn commit(folder: &Path, name: &str) -> String {
    fs::write(folder.join(name), format!("{name}\n")).expect("a folder of our own");
    run(&mut git(folder, &["add", "--all"]));
    run(&mut git(folder, &["commit", "--quiet", "--message", name]));
    head(folder)
}

fn head(folder: &Path) -> String {
    support::told(&mut git(folder, &["rev-parse", "main"])).trim().to_owned()
}

fn lay_repository(_: &Page, folder: &Folder) {
    let (work, project) = (folder.file("work"), folder.file("srv/git/project.git"));
    fs::create_dir_all(&work).expect("a folder of our own");
    fs::create_dir_all(&project).expect("a folder of our own");
    run(&mut git(&work, &["init", "--quiet", "--initial-branch=main"]));
    run(&mut git(&project, &["init", "--quiet", "--bare", "--initial-branch=main"]));
    commit(&work, "first");
    run(&mut git(&work, &["push", "--quiet", &folder.text("srv/git/project.git"), "main"]));
}

fn clone_and_push(scene: &Scene) -> Result<(), String> {
    let url = format!("git://127.0.0.1:{}/project.git", scene.port());
    let (copy, project) = (scene.folder.file("copy"), scene.folder.file("srv/git/project.git"));
    is_done(&mut git(scene.folder.path(), &["clone", "--quiet", &url, "copy"]))?;
    is_same(head(&copy), head(&project))?;
    run(&mut git(&copy, &["fsck", "--full", "--strict"]));
    let before = head(&project);
    let after = commit(&copy, "second");
    let pushed = is_done(&mut git(&copy, &["push", "--quiet", "origin", "main"]));
    if scene.line.words.iter().any(|word| word == "--enable=receive-pack") {
        pushed?;
        run(&mut git(&project, &["fsck", "--full", "--strict"]));
        return is_same(head(&project), after);
    }
    is_same(pushed.is_err(), true)?;
    is_same(head(&project), before)
}

fn lay_trees(_: &Page, folder: &Folder) {
    for name in ["pub/deep/er", "incoming"] {
        fs::create_dir_all(folder.file("srv/rsync").join(name)).expect("a folder of our own");
    }
    let public = folder.file("srv/rsync/pub");
    for (name, text) in [("one", "1\n"), ("deep/two", ""), ("deep/er/three", "three\n")] {
        fs::write(public.join(name), text).expect("a folder of our own");
        fs::set_permissions(public.join(name), fs::Permissions::from_mode(0o754)).expect("our own file");
    }
    run(command("touch").args(["--date", "2001-02-03"]).arg(public.join("one")));
    std::os::unix::fs::symlink("one", public.join("link")).expect("a folder of our own");
    fs::write(folder.file("srv/rsyncd.conf"), here(&example("rsyncd.conf"), folder)).expect("our own folder");
}

fn download_and_upload(scene: &Scene) -> Result<(), String> {
    let url = |module: &str| format!("rsync://127.0.0.1:{}/{module}/", scene.port());
    let (public, incoming) = (scene.folder.file("srv/rsync/pub"), scene.folder.file("srv/rsync/incoming"));
    let copy = scene.folder.file("copy");
    is_done(command("rsync").arg("--archive").arg(url("pub")).arg(&copy))?;
    is_same_tree(&public, &copy)?;
    // The link as it is would be changed by rsync, which lets nobody upload one that leads out.
    let upload = ["--archive", "--no-links", "--quiet"];
    let uploaded = is_done(command("rsync").args(upload).arg(copy.join("")).arg(url("incoming")));
    if scene.line.takes_uploads() {
        uploaded?;
        fs::remove_file(copy.join("link")).expect("our own copy");
        return is_same_tree(&copy, &incoming);
    }
    is_same(uploaded.is_err(), true)?;
    is_same(fs::read_dir(&incoming).expect("our own folder").count(), 0)
}

/// The same files, with the same modes and times.
fn is_same_tree(one: &Path, other: &Path) -> Result<(), String> {
    is_done(command("diff").args(["--recursive", "--no-dereference"]).arg(one).arg(other))?;
    for name in ["one", "deep", "deep/two", "deep/er/three"] {
        let about = |tree: &Path| fs::metadata(tree.join(name)).map(|about| (about.mode(), about.mtime()));
        is_same(about(one).map_err(|why| why.to_string())?, about(other).map_err(|why| why.to_string())?)?;
    }
    Ok(())
}

fn lay_site(_: &Page, folder: &Folder) {
    fs::create_dir_all(folder.file("srv/www")).expect("a folder of our own");
    fs::write(folder.file("srv/www/index.html"), "<p>Hello.\n".repeat(10_000)).expect("a folder of our own");
}

fn get(scene: &Scene) -> Result<(), String> {
    let url = |name: &str| format!("http://127.0.0.1:{}/{name}", scene.port());
    let how = ["--silent", "--show-error", "--fail"];
    let got = is_done(command("curl").args(how).arg(url("index.html")))?.stdout;
    is_same(got == fs::read(scene.folder.file("srv/www/index.html")).expect("our own file"), true)?;
    let missing = is_done(command("curl").args(how).arg(url("nothing.html")));
    is_same(missing.is_err_and(|why| why.contains(" 404")), true)
}

fn lay_program(folder: &Folder, path: &str) {
    let path = folder.file("srv").join(path);
    fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder of our own");
    let name = path.file_name().expect("a program has a name");
    // By another process: see `Folder::copy`.
    run(Command::new("cp").arg(examples().join(name)).arg(&path));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it was just copied");
}

fn lay_python(_: &Page, folder: &Folder) {
    let there = Path::new("/usr/bin/python3").is_file();
    assert!(there, "this test needs /usr/bin/python3: apt-get install --no-install-recommends python3");
    lay_program(folder, "lines/lines.py");
}

fn lay_perl(_: &Page, folder: &Folder) {
    lay_program(folder, "lines/lines.pl");
}

fn speak(scene: &Scene) -> Result<(), String> {
    let mut stream = BufReader::new(Stream::connect(scene.server.addr(0)).map_err(|why| why.to_string())?);
    is_same(hear(&mut stream)?, "hello 127.0.0.1\n".to_owned())?;
    for (says, hears) in [("abc", "1 cba\n"), ("x y", "2 y x\n"), ("quit", "bye\n")] {
        writeln!(stream.get_mut(), "{says}").map_err(|why| why.to_string())?;
        is_same(hear(&mut stream)?, hears.to_owned())?;
    }
    is_same(hear(&mut stream)?, String::new())
}

/// The next line, or nothing at the end.
fn hear(stream: &mut BufReader<Stream>) -> Result<String, String> {
    let mut line = String::new();
    stream.read_line(&mut line).map(|_| line).map_err(|why| why.to_string())
}

/// What comes back of a text to its end.
fn answer(scene: &Scene, text: &str) -> Result<String, String> {
    let output = fed(command(binary("tine")).args(["connect", scene.server.addr(0)]), text.as_bytes());
    is_same(output.status.success(), true)?;
    String::from_utf8(output.stdout).map_err(|why| why.to_string())
}

fn lay_words(_: &Page, folder: &Folder) {
    lay_program(folder, "words/words.sh");
}

fn count_words(scene: &Scene) -> Result<(), String> {
    let answer = answer(scene, &"a rose is a rose, is A rose. Is it?\n\n".repeat(5_000))?;
    let words: Vec<&str> = answer.split_whitespace().collect();
    is_same(words, ["15000", "a", "15000", "is", "15000", "rose", "5000", "it"].to_vec())
}

/// Builds it as the page says.
fn lay_sum(page: &Page, folder: &Folder) {
    for name in ["srv/sum", "srv/empty"] {
        fs::create_dir_all(folder.file(name)).expect("a folder of our own");
    }
    let typed = page.typed();
    let build =
        typed.iter().find_map(|(_, text)| text.starts_with("cc ").then_some(*text)).expect("how it is built");
    run(command("sh").args(["-c", &here(build, folder)]).current_dir(examples()));
}

fn sum(scene: &Scene) -> Result<(), String> {
    let numbers: String = (1..=100).map(|number| format!("{number}\n")).collect();
    is_same(answer(scene, &numbers)?, "5050\n".to_owned())?;
    is_same(answer(scene, "two\n")?, "that is no number, or too large a one\n".to_owned())
}
