package issuer

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// pageBrowser keeps cookies and follows nothing by itself.
type pageBrowser struct {
	scene  *pageScene
	client *http.Client
	header http.Header // added to each request
}

func (scene *pageScene) browser() *pageBrowser {
	jar, _ := cookiejar.New(nil)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if strings.HasPrefix(scene.base, "https:") {
		transport.TLSClientConfig.InsecureSkipVerify = true
	}
	scene.t.Cleanup(transport.CloseIdleConnections)
	return &pageBrowser{scene: scene, header: http.Header{}, client: &http.Client{Jar: jar, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *pageBrowser) get(path string) *page {
	b.scene.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = b.scene.base + path
	}
	r, err := http.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		b.scene.t.Fatal(err)
	}
	return b.do(r)
}

func (b *pageBrowser) post(path string, form url.Values) *page {
	b.scene.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = b.scene.base + path
	}
	r, err := http.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	if err != nil {
		b.scene.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r)
}

func (b *pageBrowser) do(r *http.Request) *page {
	b.scene.t.Helper()
	for name, values := range b.header {
		r.Header[name] = values
	}
	response, err := b.client.Do(r)
	if err != nil {
		b.scene.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		b.scene.t.Fatal(err)
	}
	root, err := html.Parse(strings.NewReader(string(body)))
	if err != nil {
		b.scene.t.Fatal(err)
	}
	return &page{t: b.scene.t, browser: b, status: response.StatusCode, header: response.Header, body: string(body), root: root}
}

// follow goes where a redirect of ours leads; a page stays.
func (b *pageBrowser) follow(p *page) *page {
	b.scene.t.Helper()
	if p.status == http.StatusSeeOther && strings.HasPrefix(p.location(), b.scene.base) {
		return b.get(p.location())
	}
	return p
}

func (b *pageBrowser) cookie(name string) string {
	u, _ := url.Parse(b.scene.base)
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == b.scene.cookieName(name) {
			return c.Value
		}
	}
	return ""
}

func (b *pageBrowser) setCookie(name, value string) {
	u, _ := url.Parse(b.scene.base)
	b.client.Jar.SetCookies(u, []*http.Cookie{{Name: b.scene.cookieName(name), Value: value, Path: "/", Secure: u.Scheme == "https"}})
}

// page is an answer as a person (or a screen reader) meets it.
type page struct {
	t       *testing.T
	browser *pageBrowser
	status  int
	header  http.Header
	body    string
	root    *html.Node
}

func (p *page) location() string { return p.header.Get("Location") }

// text is what can be read, with single spaces.
func (p *page) text() string {
	return textOf(p.find(func(n *html.Node) bool { return n.Data == "body" }))
}

func (p *page) heading() string {
	return textOf(p.find(func(n *html.Node) bool { return n.Data == "h1" }))
}

func (p *page) find(match func(*html.Node) bool) *html.Node {
	for n := range p.root.Descendants() {
		if n.Type == html.ElementNode && match(n) {
			return n
		}
	}
	return nil
}

func (p *page) button(name string) *html.Node {
	return p.find(func(n *html.Node) bool { return n.Data == "button" && textOf(n) == name })
}

// field returns the input that the label with this text belongs to.
func (p *page) field(label string) *html.Node {
	l := p.find(func(n *html.Node) bool { return n.Data == "label" && textOf(n) == label })
	if l == nil {
		return nil
	}
	return p.find(func(n *html.Node) bool { return n.Data == "input" && attribute(n, "id") == attribute(l, "for") })
}

// form returns what pressing the button would send, and where.
func (p *page) form(button string) (action string, values url.Values) {
	p.t.Helper()
	b := p.button(button)
	if b == nil {
		p.t.Fatalf("no button %q on the page (%d): %s", button, p.status, p.text())
	}
	form := b
	for form.Data != "form" {
		form = form.Parent
	}
	values = url.Values{}
	for n := range form.Descendants() {
		if n.Type == html.ElementNode && n.Data == "input" && (attribute(n, "type") != "checkbox" || has(n, "checked")) {
			values.Set(attribute(n, "name"), attribute(n, "value"))
		}
	}
	if name := attribute(b, "name"); name != "" {
		values.Set(name, attribute(b, "value"))
	}
	return attribute(form, "action"), values
}

// submit fills fields in and presses the button.
func (p *page) submit(button string, fields ...string) *page {
	p.t.Helper()
	action, values := p.form(button)
	for i := 0; i < len(fields); i += 2 {
		values.Set(fields[i], fields[i+1])
	}
	return p.browser.post(action, values)
}

// wantCode asserts a redirect to the client with a code and returns it.
func (p *page) wantCode() string {
	p.t.Helper()
	u, err := url.Parse(p.location())
	if err != nil || (p.status != http.StatusSeeOther && p.status != http.StatusFound) || u.Query().Get("code") == "" {
		p.t.Fatalf("want a redirect with a code, got %d %s: %s", p.status, p.location(), p.text())
	}
	return u.Query().Get("code")
}

// wantError asserts a redirect to the client with this error.
func (p *page) wantError(code string) {
	p.t.Helper()
	u, err := url.Parse(p.location())
	if err != nil || u.Query().Get("error") != code || u.Query().Has("code") {
		p.t.Fatalf("want a redirect with error %s, got %d %s: %s", code, p.status, p.location(), p.text())
	}
}

// wantPage asserts a page of this status with this heading, and no way on.
func (p *page) wantPage(status int, heading string) {
	p.t.Helper()
	if p.status != status || p.heading() != heading || p.location() != "" {
		p.t.Fatalf("want page %d %q, got %d %q %s", status, heading, p.status, p.heading(), p.location())
	}
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

// pagePrompt is a prompt parameter.
func pagePrompt(values ...string) []string { return values }

// has reports whether the element has an attribute without a value.
func has(n *html.Node, name string) bool {
	for _, a := range n.Attr {
		if a.Key == name {
			return true
		}
	}
	return false
}
