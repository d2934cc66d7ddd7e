// Package ruletest reads files of requests and what is expected of them, holds
// the expectations against what became of the requests, and reports in text and
// as JUnit XML. It sends nothing.
package ruletest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// Case is a request and what is expected of it.
type Case struct {
	Name   string // the line, or what a generated case is about
	Source string // such as "rules.test:12", or the rule of a generated case

	Method string
	Path   string // as it is sent, with the query
	Host   string // empty: the issuer's
	Client string // whose token it is; empty: the first of the configuration
	Anyone bool   // without a token
	Scopes []string
	User   []string // what the user has, as CLAIM=VALUE,VALUE
	Tool   string   // of an MCP server that is called; empty: none
	Origin string   // of a browser; empty: none
	For    string   // method that a CORS preflight asks for; empty: it is none

	Want Expectation
}

// Expectation is what must become of a request.
type Expectation struct {
	Outcome explain.Outcome // empty: see below
	Allow   bool            // the gate lets it through
	Refuse  bool            // it comes to no handler
	Status  int             // of the answer
	Code    string          // the error code of the answer; empty: any
	Rule    string          // that decides, as it is written; empty: any
	NotTo   string          // handler that it must not come to without a gate; empty: none
}

func (e Expectation) String() string {
	text := string(e.Outcome)
	switch {
	case e.Allow:
		text = "allow"
	case e.Refuse || e.NotTo != "":
		text = "refuse"
	case e.Status != 0:
		text = strings.TrimSpace(fmt.Sprint(e.Status, " ", e.Code))
	}
	if e.Rule != "" {
		text += " by " + e.Rule
	}
	return text
}

// Parse reads the lines of a file:
//
//	METHOD PATH [on HOST] [as CLIENT] [with SCOPE... | with no scope | without token]
//	            [calling TOOL] [from ORIGIN [for METHOD]] -> EXPECTATION
//
// Behind the scopes, or no scope, may stand what the user has: CLAIM=VALUE...
// A request is without a token unless the line says otherwise. EXPECTATION is
// allow, refuse, a status with or without an error code, or an outcome of
// `caddy oauth explain`. A # at the beginning of a word begins a comment. name
// is what errors call the file.
func Parse(name string, from io.Reader) ([]Case, error) {
	var cases []Case
	var problems []error
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if i := slices.IndexFunc(words, func(w string) bool { return w[0] == '#' }); i >= 0 {
			words = words[:i]
		}
		if len(words) == 0 {
			continue
		}
		c, err := parseLine(words)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s:%d: %w", name, n, err))
			continue
		}
		c.Name, c.Source = strings.Join(words, " "), fmt.Sprintf("%s:%d", name, n)
		cases = append(cases, c)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return cases, errors.Join(problems...)
}

// keywords begin the parts of a line.
var keywords = []string{"on", "as", "with", "without", "calling", "from", "for", "->"}

func parseLine(words []string) (Case, error) {
	if len(words) < 2 || slices.Contains(keywords, words[0]) || slices.Contains(keywords, words[1]) {
		return Case{}, errors.New("a method and a path are expected, such as: GET /jobs/1 with jobs:read -> allow")
	}
	c := Case{Method: words[0], Path: words[1], Anyone: true}
	if !strings.HasPrefix(c.Path, "/") && c.Path != "*" {
		return c, fmt.Errorf("path %q does not begin with a slash", c.Path)
	}
	seen := make(map[string]bool)
	for rest := words[2:]; ; {
		if len(rest) == 0 {
			return c, errors.New("what is expected is missing: end the line with -> allow, -> refuse or -> STATUS")
		}
		word := rest[0]
		if !slices.Contains(keywords, word) {
			return c, fmt.Errorf("%q is not expected here; one of %s is", word, strings.Join(keywords, ", "))
		}
		if seen[word] {
			return c, fmt.Errorf("%s stands here twice", word)
		}
		seen[word] = true
		n := 1
		for n < len(rest) && !slices.Contains(keywords, rest[n]) {
			n++
		}
		values := rest[1:n]
		if word == "->" {
			var err error
			c.Want, err = parseExpectation(rest[1:])
			return c, err
		}
		if err := c.set(word, values); err != nil {
			return c, err
		}
		rest = rest[n:]
	}
}

func (c *Case) set(word string, values []string) error {
	one := map[string]*string{"on": &c.Host, "as": &c.Client, "calling": &c.Tool, "from": &c.Origin, "for": &c.For}[word]
	switch {
	case one != nil && len(values) != 1:
		return fmt.Errorf("%s: one word is expected after it", word)
	case word == "as":
		c.Client, c.Anyone = values[0], false
	case one != nil:
		*one = values[0]
	case word == "without" && !slices.Equal(values, []string{"token"}):
		return errors.New("without: only token can follow")
	case word == "without" && (c.Client != "" || c.Scopes != nil):
		return errors.New("without token contradicts with and as")
	case word == "with" && len(values) == 0:
		return errors.New("with: the scopes of the token are missing; write with no scope for a token without any")
	case word == "with":
		c.Anyone = false
		c.User = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !oauth.IsUserRequirement(v) })
		values = slices.DeleteFunc(slices.Clone(values), oauth.IsUserRequirement)
		if !slices.Equal(values, []string{"no", "scope"}) {
			c.Scopes = values
		}
	}
	return nil
}

// outcomes that a line may expect by name.
var outcomes = []explain.Outcome{
	explain.Allowed, explain.Preflight, explain.Bypass, explain.Unmatched, explain.Refused, explain.NotGated, explain.AuthorizationServer,
}

func parseExpectation(words []string) (Expectation, error) {
	if len(words) == 0 {
		return Expectation{}, errors.New("-> is followed by nothing; write allow, refuse or a status")
	}
	e := Expectation{}
	status, err := strconv.Atoi(words[0])
	switch {
	case words[0] == "allow":
		e.Allow = true
	case words[0] == "refuse":
		e.Refuse = true
	case slices.Contains(outcomes, explain.Outcome(words[0])):
		e.Outcome = explain.Outcome(words[0])
	case err == nil && status >= 100 && status < 600:
		if e.Status = status; len(words) == 2 {
			e.Code = words[1]
			words = words[:1]
		}
	default:
		return e, fmt.Errorf("%q is no expectation; write allow, refuse, a status with or without an error code, or one of %v", words[0], outcomes)
	}
	if len(words) > 1 {
		return e, fmt.Errorf("%q is not expected at the end", words[1])
	}
	return e, nil
}

// Check returns what is wrong with what became of the request; "": nothing. code
// is the error code of a refusal.
func (e Expectation) Check(told *explain.Explanation, code string) string {
	status := 0
	if told.Answer != nil {
		status = told.Answer.Status
	}
	met := true
	switch {
	case e.Allow:
		met = slices.Contains([]explain.Outcome{explain.Allowed, explain.Preflight, explain.Bypass, explain.Unmatched}, told.Outcome)
	case e.Refuse:
		met = told.Outcome == explain.Refused || told.Outcome == explain.NotGated && told.Handler == "" && (status == 0 || status >= 400)
	case e.NotTo != "":
		met = told.Outcome == explain.Refused || told.Handler != e.NotTo
	case e.Status != 0:
		met = status == e.Status && (e.Code == "" || code == e.Code)
	default:
		met = told.Outcome == e.Outcome
	}
	if met && (e.Rule == "" || told.Rule != nil && told.Rule.Text == e.Rule) {
		return ""
	}
	return fmt.Sprintf("expected %s, got %s", e, became(told, status, code))
}

// became says in one line what became of a request.
func became(told *explain.Explanation, status int, code string) string {
	text := string(told.Outcome)
	if status != 0 {
		text = strings.TrimSpace(fmt.Sprint(text, " ", status, " ", code))
	}
	if told.Rule != nil {
		text += ", by the rule " + told.Rule.Text + " at " + told.Rule.Source
	}
	if len(told.Missed) > 0 {
		text += ", missing " + strings.Join(told.Missed, " ")
	}
	if len(told.MissedOfUser) > 0 {
		text += ", of the user " + strings.Join(told.MissedOfUser, " ")
	}
	if told.Outcome == explain.NotGated && told.Handler != "" {
		text += ": no gate stands before " + told.Handler
	}
	if told.Cause != "" {
		text += " (" + told.Cause + ")"
	}
	return text
}
