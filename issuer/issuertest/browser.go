package issuertest

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// Browser keeps cookies and goes nowhere by itself.
type Browser struct {
	Header http.Header // added to each request

	t     testing.TB
	scene *Scene
	http  *http.Client
}

// Browser opens a browser nobody has used before.
func (s *Scene) Browser(t testing.TB) *Browser {
	jar, _ := cookiejar.New(nil)
	client := *s.http
	client.Jar = jar
	return &Browser{Header: http.Header{}, t: t, scene: s, http: &client}
}

// Authorize opens an authorization request of the client.
func (b *Browser) Authorize(clientID string, params ...Param) *Page {
	b.t.Helper()
	query, _ := b.scene.Authorization(clientID, params...)
	return b.Get("/oauth/authorize?" + query.Encode())
}

// Get opens a path of the server, or a whole address.
func (b *Browser) Get(address string) *Page {
	b.t.Helper()
	r, err := http.NewRequest(http.MethodGet, b.absolute(address), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.Do(r)
}

// Post sends a form there.
func (b *Browser) Post(address string, form url.Values) *Page {
	b.t.Helper()
	r, err := http.NewRequest(http.MethodPost, b.absolute(address), strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.Do(r)
}

func (b *Browser) absolute(address string) string {
	if strings.HasPrefix(address, "/") {
		return b.scene.URL + address
	}
	return address
}

// Do sends any request with the cookies of the browser.
func (b *Browser) Do(r *http.Request) *Page {
	b.t.Helper()
	for name, values := range b.Header {
		r.Header[name] = values
	}
	response, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	root, err := html.Parse(strings.NewReader(string(body)))
	if err != nil {
		b.t.Fatal(err)
	}
	return &Page{Status: response.StatusCode, Header: response.Header, Body: string(body), t: b.t, browser: b, root: root}
}

// Cookie is the value of a cookie that the browser would send; empty: none. name
// is without __Host-.
func (b *Browser) Cookie(name string) string {
	for _, c := range b.http.Jar.Cookies(b.site()) {
		if c.Name == name || c.Name == "__Host-"+name {
			return c.Value
		}
	}
	return ""
}

// SetCookie puts a cookie for the whole site into the browser. name is complete.
func (b *Browser) SetCookie(name, value string) {
	b.http.Jar.SetCookies(b.site(), []*http.Cookie{{Name: name, Value: value, Path: "/", Secure: b.site().Scheme == "https"}})
}

// ForgetCookies empties the jar.
func (b *Browser) ForgetCookies() { b.http.Jar, _ = cookiejar.New(nil) }

func (b *Browser) site() *url.URL {
	u, _ := url.Parse(b.scene.URL)
	return u
}

// Page is an answer as a person (or a screen reader) meets it.
type Page struct {
	Status int
	Header http.Header
	Body   string

	t       testing.TB
	browser *Browser
	root    *html.Node
}

// Browser is the one that shows the page.
func (p *Page) Browser() *Browser { return p.browser }

// Location is where the answer sends the browser; empty: nowhere.
func (p *Page) Location() string { return p.Header.Get("Location") }

// Query is the query of Location.
func (p *Page) Query() url.Values {
	p.t.Helper()
	u, err := url.Parse(p.Location())
	if err != nil {
		p.t.Fatalf("Location %q: %v", p.Location(), err)
	}
	return u.Query()
}

// Heading is the text of the h1.
func (p *Page) Heading() string {
	return textOf(p.find(func(n *html.Node) bool { return n.Data == "h1" }))
}

// Text is what can be read, with single spaces.
func (p *Page) Text() string {
	return textOf(p.find(func(n *html.Node) bool { return n.Data == "body" }))
}

// Has reports whether there is a button of this name.
func (p *Page) Has(button string) bool { return p.button(button) != nil }

// Buttons are the names of all buttons.
func (p *Page) Buttons() (names []string) {
	for n := range p.root.Descendants() {
		if n.Type == html.ElementNode && n.Data == "button" {
			names = append(names, textOf(n))
		}
	}
	return names
}

// Values are what the buttons and fields of this name would send.
func (p *Page) Values(name string) (values []string) {
	for n := range p.root.Descendants() {
		if n.Type == html.ElementNode && attribute(n, "name") == name {
			values = append(values, attribute(n, "value"))
		}
	}
	return values
}

// Link is where the link of this text leads; empty: there is none.
func (p *Page) Link(text string) string {
	link := p.find(func(n *html.Node) bool { return n.Data == "a" && textOf(n) == text })
	if link == nil {
		return ""
	}
	return attribute(link, "href")
}

// Follow goes where a redirect of ours leads; a page, and a redirect to
// elsewhere, stay.
func (p *Page) Follow() *Page {
	p.t.Helper()
	if strings.HasPrefix(p.Location(), p.browser.scene.URL+"/oauth/") {
		return p.browser.Get(p.Location())
	}
	return p
}

// SignIn signs ada in and follows to the next page.
func (p *Page) SignIn() *Page {
	p.t.Helper()
	return p.Press("Sign in", "email", Email, "password", Password).Follow()
}

// Allow presses Allow, in whatever language the page speaks.
func (p *Page) Allow() *Page {
	p.t.Helper()
	return p.decide("allow")
}

// Deny presses Deny, in whatever language the page speaks.
func (p *Page) Deny() *Page {
	p.t.Helper()
	return p.decide("deny")
}

func (p *Page) decide(decision string) *Page {
	p.t.Helper()
	b := p.find(func(n *html.Node) bool {
		return n.Data == "button" && attribute(n, "name") == "decision" && attribute(n, "value") == decision
	})
	if b == nil {
		p.t.Fatalf("no button to %s on the page (%d %s): %s", decision, p.Status, p.Location(), p.Text())
	}
	return p.Press(textOf(b))
}

// Press fills fields in (name, value, name, value) and presses the button.
func (p *Page) Press(button string, fields ...string) *Page {
	p.t.Helper()
	action, form := p.Form(button)
	for i := 0; i+1 < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return p.browser.Post(action, form)
}

// Form is what pressing the button would send, and where.
func (p *Page) Form(button string) (action string, form url.Values) {
	p.t.Helper()
	b := p.button(button)
	if b == nil {
		p.t.Fatalf("no button %q on the page (%d %s): %s", button, p.Status, p.Location(), p.Text())
	}
	parent := b
	for parent.Data != "form" {
		parent = parent.Parent
	}
	form = url.Values{}
	for n := range parent.Descendants() {
		if n.Type == html.ElementNode && n.Data == "input" && (attribute(n, "type") != "checkbox" || has(n, "checked")) {
			form.Set(attribute(n, "name"), attribute(n, "value"))
		}
	}
	if name := attribute(b, "name"); name != "" {
		form.Set(name, attribute(b, "value"))
	}
	return attribute(parent, "action"), form
}

// Data is the attribute data-<name> of the form that the button is in.
func (p *Page) Data(button, name string) string {
	p.t.Helper()
	n := p.button(button)
	for ; n != nil; n = n.Parent {
		if n.Data == "form" {
			return attribute(n, "data-"+name)
		}
	}
	p.t.Fatalf("no button %q in a form on the page (%d %s): %s", button, p.Status, p.Location(), p.Text())
	return ""
}

// Code asserts a redirect to the client with a code and returns it.
func (p *Page) Code() string {
	p.t.Helper()
	if p.Status != http.StatusSeeOther || p.Query().Get("code") == "" || p.Query().Has("error") {
		p.t.Fatalf("want a redirect with a code, got %d %q: %s", p.Status, p.Location(), p.Text())
	}
	return p.Query().Get("code")
}

// WantError asserts a redirect to the client with this error and no code.
func (p *Page) WantError(code string) {
	p.t.Helper()
	if p.Status != http.StatusSeeOther || p.Query().Get("error") != code || p.Query().Has("code") {
		p.t.Fatalf("want a redirect with error %s, got %d %q: %s", code, p.Status, p.Location(), p.Text())
	}
}

// WantPage asserts a page of this status and heading that leads nowhere.
func (p *Page) WantPage(status int, heading string) {
	p.t.Helper()
	if p.Status != status || p.Heading() != heading || p.Location() != "" {
		p.t.Fatalf("want page %d %q, got %d %q %s", status, heading, p.Status, p.Heading(), p.Location())
	}
}

func (p *Page) button(name string) *html.Node {
	return p.find(func(n *html.Node) bool { return n.Data == "button" && textOf(n) == name })
}

func (p *Page) find(match func(*html.Node) bool) *html.Node {
	for n := range p.root.Descendants() {
		if n.Type == html.ElementNode && match(n) {
			return n
		}
	}
	return nil
}

func textOf(n *html.Node) string {
	if n == nil {
		return ""
	}
	var text strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			text.WriteString(d.Data)
		}
	}
	return strings.Join(strings.Fields(text.String()), " ")
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// has reports whether the element has an attribute without a value.
func has(n *html.Node, name string) bool {
	for _, a := range n.Attr {
		if a.Key == name {
			return true
		}
	}
	return false
}
