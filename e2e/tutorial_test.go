//go:build linux

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// tutorial is a file of docs/ that a test follows: section by section, it does
// what the blocks say, as a reader would with copy and paste.
//
//	```caddyfile   is written to Caddyfile
//	```sh          is run
//	```console     is run, the lines after a $; the lines below must come of it,
//	               where ... stands for anything
//	```sql         is run in psql
type tutorial struct {
	t        *testing.T
	machine  *machine
	name     string
	sections []tutorialSection
	// own replaces the values that a reader writes in place of the tutorial's.
	own *strings.Replacer
	// line is told each line that a command prints; a person may act on it.
	line func(string)
	// caddyfile, unless nil, is given what a block shows of the Caddyfile, in place of
	// writing it.
	caddyfile func(string)
	log       lockedBuffer // of Caddy
}

type tutorialSection struct {
	title, text string
}

// follow opens a tutorial on the machine of a reader.
func follow(t *testing.T, m *machine, name string) *tutorial {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	f := &tutorial{t: t, machine: m, name: name, own: strings.NewReplacer("postgres://caddy:PASSWORD@db.example.com/caddy", os.Getenv(readerDatabase))}
	for part := range strings.SplitSeq(string(text), "\n## ") {
		title, rest, _ := strings.Cut(part, "\n")
		f.sections = append(f.sections, tutorialSection{title, rest})
	}
	f.sections = f.sections[1:] // the title and what it is about
	t.Cleanup(func() {
		_, _ = f.shell("./caddy stop", false)
		if t.Failed() {
			t.Logf("the log of Caddy:\n%s", &f.log)
		}
	})
	return f
}

var (
	fenced   = regexp.MustCompile("(?ms)^```([a-z-]+)\n(.*?)^```$")
	tableRow = regexp.MustCompile(`(?m)^\| (.*) \|$`)
)

// section does what the next section says, which must have this title.
func (f *tutorial) section(title string) tutorialSection {
	f.t.Helper()
	if len(f.sections) == 0 || f.sections[0].title != title {
		f.t.Fatalf("%s: the next section is not %q: %q", f.name, title, f.sections)
	}
	next := f.sections[0]
	f.sections = f.sections[1:]
	for _, block := range fenced.FindAllStringSubmatch(next.text, -1) {
		f.do(block[1], f.own.Replace(block[2]))
	}
	return next
}

// end is the end of the tutorial: nothing is left.
func (f *tutorial) end() {
	f.t.Helper()
	if len(f.sections) > 0 {
		f.t.Errorf("%s: not followed: %q", f.name, f.sections[0].title)
	}
}

func (f *tutorial) do(kind, text string) {
	f.t.Helper()
	switch kind {
	case "caddyfile":
		if f.caddyfile != nil {
			f.caddyfile(text)
			return
		}
		// Who signs certificates is all that differs: no public authority is here.
		writeFile(f.t, filepath.Join(f.machine.dir, "Caddyfile"), strings.Replace(text, "{\n", "{\n\tlocal_certs\n\tskip_install_trust\n", 1))
	case "sh":
		if out, err := f.shell(text, true); err != nil {
			f.t.Fatalf("%s: %v\n%s\n%s", f.name, err, text, out)
		}
	case "sql":
		if out, err := f.shell(`psql -v ON_ERROR_STOP=1 -q "$DATABASE_URL" <<'SQL'`+"\n"+text+"SQL\n", true); err != nil {
			f.t.Fatalf("%s: %v\n%s\n%s", f.name, err, text, out)
		}
	case "console":
		f.console(text)
	case "caddyfile-syntax": // to be read
	default:
		f.t.Errorf("%s: nobody knows what to do with %s", f.name, kind)
	}
}

// logLine is what Caddy logs beside the output of a command.
var logLine = regexp.MustCompile(`(?m)^\{"level":"(info|warn)".*\n`)

// console runs each command and compares what it prints with what is shown.
func (f *tutorial) console(text string) {
	f.t.Helper()
	for part := range strings.SplitSeq("\n"+text, "\n$ ") {
		if part == "" {
			continue
		}
		command, shown, _ := strings.Cut(part, "\n")
		out, _ := f.shell(command, true) // a command that tells of a refusal exits with an error
		out = logLine.ReplaceAllString(out+"\n", "")
		if !shownIn(shown, out) {
			f.t.Errorf("%s: $ %s\nshows\n%s\nand prints\n%s", f.name, command, shown, out)
		}
	}
}

// shownIn reports whether the output is what is shown, with anything for each
// "...".
func shownIn(shown, out string) bool {
	pattern := regexp.QuoteMeta(strings.TrimSpace(shown)) // curl prints a space after the status
	out = regexp.MustCompile(`[ \r]+\n`).ReplaceAllString(out+"\n", "\n")
	pattern = strings.ReplaceAll(pattern, regexp.QuoteMeta("..."), "(?s:.*)")
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(strings.TrimSpace(out))
}

// shellEnds is printed after the last output of the commands. What comes later is
// of a Caddy that they left running.
const shellEnds = "-- the commands end --"

// shell runs commands in the reader's shell: what they set stays.
func (f *tutorial) shell(commands string, tell bool) (out string, err error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	state := filepath.Join(f.machine.dir, ".shell")
	script := fmt.Sprintf("set -a; [ ! -e %s ] || . %[1]s\ntrap 'export -p > %[1]s; echo; echo \"%s\"' EXIT\n%s", state, shellEnds, commands)
	run := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", script)
	run.Dir, run.Env = f.machine.dir, os.Environ()
	reader, writer, err := os.Pipe()
	if err != nil {
		f.t.Fatal(err)
	}
	run.Stdout, run.Stderr = writer, writer
	if err := run.Start(); err != nil {
		f.t.Fatal(err)
	}
	_ = writer.Close()
	ended := make(chan []string, 1)
	go func() {
		defer reader.Close()
		var lines []string
		scan := bufio.NewScanner(reader)
		for scan.Scan() && scan.Text() != shellEnds {
			lines = append(lines, scan.Text())
			if tell && f.line != nil {
				f.line(scan.Text())
			}
		}
		ended <- lines
		for scan.Scan() {
			_, _ = f.log.Write(append(scan.Bytes(), '\n'))
		}
	}()
	err = run.Wait()
	return strings.TrimSpace(strings.Join(<-ended, "\n")), err
}

// table is the rows of the section's table.
func (s tutorialSection) table() (rows [][]string) {
	for _, row := range tableRow.FindAllStringSubmatch(s.text, -1) {
		if cells := strings.Split(row[1], " | "); !strings.HasPrefix(cells[0], "---") {
			rows = append(rows, cells)
		}
	}
	return slices.Delete(rows, 0, min(1, len(rows)))
}

// value is the value of a field in a table of fields, without its backquotes.
func (s tutorialSection) value(t *testing.T, field string) string {
	t.Helper()
	for _, row := range s.table() {
		if row[0] == field {
			return strings.Trim(row[1], "`")
		}
	}
	t.Fatalf("no field %q", field)
	return ""
}

// mentions fails the test unless the section tells the reader about each.
func (s tutorialSection) mentions(t *testing.T, what ...string) {
	t.Helper()
	for _, text := range what {
		if !strings.Contains(s.text, text) {
			t.Errorf("%q says nothing of %q", s.title, text)
		}
	}
}
