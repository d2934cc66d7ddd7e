package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// nodeBinary is the Node that clients/package-lock.json pins, or where that has
// none for the machine, the one of the system.
func nodeBinary(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("clients/node_modules/.installed-by.json"); err != nil {
		t.Fatalf("the clients are not installed: run scripts/deps clients (%v)", err)
	}
	if found, _ := filepath.Glob("clients/node_modules/node-*/bin/node"); len(found) > 0 {
		node, err := filepath.Abs(found[0])
		if err != nil {
			t.Fatal(err)
		}
		return node
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("no Node 22 or newer is found")
	}
	return node
}

// driver is a program of clients/ that runs a library nobody here wrote.
type driver struct {
	t       *testing.T
	name    string
	reports chan report
	in      io.Writer
	log     *lockedBuffer
	exited  chan error
}

// report is one line of a driver: what it did, and what came of it.
type report map[string]any

// startDriver runs a program of clients/ against the gateway until the test ends.
func (s *scene) startDriver(name string, args ...string) *driver {
	s.t.Helper()
	return s.startNode(append([]string{name}, args...)...)
}

func (s *scene) startNode(args ...string) *driver {
	s.t.Helper()
	d := &driver{t: s.t, name: strings.Join(args[:min(2, len(args))], " "), reports: make(chan report, 100), log: &lockedBuffer{}, exited: make(chan error, 1)}
	run := exec.Command(nodeBinary(s.t), args...)
	run.Dir, run.Stderr = "clients", d.log
	run.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+s.CA)
	out, err := run.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if d.in, err = run.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(d.reports)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			r := report{}
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil { // what the library itself prints
				_, _ = d.log.Write(append(lines.Bytes(), '\n'))
				continue
			}
			d.reports <- r
		}
		d.exited <- run.Wait()
	}()
	s.t.Cleanup(func() {
		_ = run.Process.Kill()
		for range d.reports {
		}
	})
	return d
}

// await returns the next report, which must be of this step.
func (d *driver) await(step string) report {
	d.t.Helper()
	select {
	case r, more := <-d.reports:
		if !more {
			d.t.Fatalf("%s ended before %q:\n%s", d.name, step, d.log)
		}
		if r["step"] != step {
			d.t.Fatalf("%s: %v, want %q\n%s", d.name, r, step, d.log)
		}
		return r
	case <-time.After(60 * time.Second):
		d.t.Fatalf("%s: no %q within a minute:\n%s", d.name, step, d.log)
	}
	return nil
}

// goOn lets a driver go on that waits for something the test has done.
func (d *driver) goOn() {
	d.t.Helper()
	if _, err := io.WriteString(d.in, "go on\n"); err != nil {
		d.t.Fatal(err)
	}
}

// wait is for the end of a driver that has no more to say.
func (d *driver) wait() {
	d.t.Helper()
	if r, more := <-d.reports; more {
		d.t.Fatalf("%s: %v, and nothing was expected", d.name, r)
	}
	select {
	case err := <-d.exited:
		if err != nil {
			d.t.Fatalf("%s: %v\n%s", d.name, err, d.log)
		}
	case <-time.After(30 * time.Second):
		d.t.Fatalf("%s does not end", d.name)
	}
}

// want fails the test unless the report has these members.
func (r report) want(t *testing.T, members map[string]any) {
	t.Helper()
	for name, want := range members {
		if got, _ := json.Marshal(r[name]); string(got) != mustJSON(t, want) {
			t.Errorf("%s: %s is %s, want %s", r["step"], name, got, mustJSON(t, want))
		}
	}
}

func (r report) text(name string) string {
	text, _ := r[name].(string)
	return text
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// allow opens the address, as the person who uses the client does: signs in where
// asked and allows. It returns what the pages said, up to the one that is
// nobody's of ours.
func allow(t *testing.T, browser context.Context, address string) (pages []string) {
	t.Helper()
	return enterCode(t, browser, address, "")
}

// enterCode is allow for a person who types the code of a device; empty: it
// stands in the link.
func enterCode(t *testing.T, browser context.Context, address, code string) (pages []string) {
	t.Helper()
	if err := chromedp.Do(browser, chromedp.Navigate(address)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		kind, err := chromedp.Run(browser, chromedp.Evaluate[string](`document.querySelector("input[name=password]") ? "sign in" :
			document.querySelector("button[value=allow]") ? "consent" : document.querySelector("input[name=user_code]") ? "code" : "over"`))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, pageText(t, browser))
		var press chromedp.Action[chromedp.Void]
		switch kind {
		case "sign in":
			fillInSignIn(t, browser)
			press = chromedp.Click(button("Sign in"))
		case "consent":
			press = chromedp.Click(button("Allow"))
		case "code":
			if len(pages) > 1 && code != "" { // what was typed is wrong
				return pages
			}
			if err := chromedp.Do(browser, chromedp.SendKeys(field("Code"), code)); err != nil {
				t.Fatal(err)
			}
			press = chromedp.Click(button("Continue"))
		default:
			return pages
		}
		waiting, cancel := context.WithTimeout(browser, 30*time.Second)
		_, err = chromedp.RunResponse(waiting, press)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s: %v\n%s", kind, err, pages[len(pages)-1])
		}
	}
	t.Fatalf("the pages do not end: %s", strings.Join(slices.Compact(pages), "\n"))
	return nil
}
