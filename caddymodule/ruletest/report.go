package ruletest

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// Result is what came of a case.
type Result struct {
	Case
	Problem string // empty: it passed
	Took    time.Duration
}

// Suite is the cases of one file, or the generated ones.
type Suite struct {
	Name    string
	Results []Result
}

// Failed counts the cases that failed.
func (s *Suite) Failed() int {
	failed := 0
	for _, r := range s.Results {
		if r.Problem != "" {
			failed++
		}
	}
	return failed
}

// WriteText writes what failed, and how many did.
func WriteText(to io.Writer, suites []Suite) error {
	cases, failed := 0, 0
	for _, s := range suites {
		for _, r := range s.Results {
			if r.Problem != "" {
				fmt.Fprintf(to, "FAIL %s: %s\n     %s\n", r.Source, r.Name, r.Problem)
			}
		}
		cases, failed = cases+len(s.Results), failed+s.Failed()
	}
	for _, s := range suites {
		fmt.Fprintf(to, "%s: %d cases, %d failed\n", s.Name, len(s.Results), s.Failed())
	}
	if failed > 0 {
		_, err := fmt.Fprintf(to, "FAILED %d of %d\n", failed, cases)
		return err
	}
	_, err := fmt.Fprintf(to, "passed all %d\n", cases)
	return err
}

type xmlSuites struct {
	XMLName  xml.Name   `xml:"testsuites"`
	Tests    int        `xml:"tests,attr"`
	Failures int        `xml:"failures,attr"`
	Suites   []xmlSuite `xml:"testsuite"`
}

type xmlSuite struct {
	Name     string    `xml:"name,attr"`
	Tests    int       `xml:"tests,attr"`
	Failures int       `xml:"failures,attr"`
	Time     string    `xml:"time,attr"`
	Cases    []xmlCase `xml:"testcase"`
}

type xmlCase struct {
	Class   string      `xml:"classname,attr"`
	Name    string      `xml:"name,attr"`
	File    string      `xml:"file,attr,omitempty"`
	Line    string      `xml:"line,attr,omitempty"`
	Time    string      `xml:"time,attr"`
	Failure *xmlFailure `xml:"failure"`
}

type xmlFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes the results as JUnit XML.
func WriteJUnit(to io.Writer, suites []Suite) error {
	all := xmlSuites{}
	for _, s := range suites {
		suite := xmlSuite{Name: s.Name, Tests: len(s.Results), Failures: s.Failed()}
		var took time.Duration
		for _, r := range s.Results {
			c := xmlCase{Class: s.Name, Name: r.Name, Time: seconds(r.Took)}
			if i := strings.LastIndexByte(r.Source, ':'); i > 0 && strings.Trim(r.Source[i+1:], "0123456789") == "" {
				c.File, c.Line = r.Source[:i], r.Source[i+1:]
			}
			if r.Problem != "" {
				c.Failure = &xmlFailure{r.Problem, r.Source + ": " + r.Name + "\n" + r.Problem}
			}
			took += r.Took
			suite.Cases = append(suite.Cases, c)
		}
		suite.Time = seconds(took)
		all.Tests, all.Failures = all.Tests+suite.Tests, all.Failures+suite.Failures
		all.Suites = append(all.Suites, suite)
	}
	if _, err := io.WriteString(to, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(to)
	encoder.Indent("", "  ")
	if err := encoder.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(to, "\n")
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }
