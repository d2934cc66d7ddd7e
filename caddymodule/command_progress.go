package caddymodule

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progress tells how far a long command has come: at a terminal in one line,
// elsewhere in a line now and then. A short command says nothing.
type progress struct {
	to       io.Writer
	what     string
	every    time.Duration
	terminal bool
	next     time.Time
	told     bool
}

const (
	quietFor        = time.Second
	tellTerminal    = 200 * time.Millisecond
	tellElsewhere   = 10 * time.Second
	eraseLine       = "\r\x1b[K"
	progressPattern = "%d %s"
)

func newProgress(to io.Writer, what string) *progress {
	p := &progress{to: to, what: what, every: tellElsewhere, next: time.Now().Add(quietFor)}
	if file, ok := to.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		p.terminal, p.every = true, tellTerminal
	}
	return p
}

func (p *progress) at(n int) {
	now := time.Now()
	if now.Before(p.next) {
		return
	}
	p.next, p.told = now.Add(p.every), true
	if p.terminal {
		fmt.Fprintf(p.to, eraseLine+progressPattern, n, p.what)
	} else {
		fmt.Fprintf(p.to, progressPattern+"\n", n, p.what)
	}
}

// done clears the line.
func (p *progress) done() {
	if p.told && p.terminal {
		fmt.Fprint(p.to, eraseLine)
	}
}
