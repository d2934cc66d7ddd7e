package caddymodule

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// ThemeSettings is what the pages look like.
type ThemeSettings struct {
	// Name is what pages call the service. Placeholders. Default: the host of the
	// issuer.
	Name string `json:"name,omitempty"`
	// Logo is a file that stands in place of the name: PNG, JPEG, GIF, WebP or SVG,
	// at most 64 KiB. The pages carry it; no browser asks another server for it.
	// Placeholders. Default: none.
	Logo string `json:"logo,omitempty"`
	// LogoDark is Logo for users who prefer dark colors. Placeholders. Default:
	// Logo.
	LogoDark string `json:"logo_dark,omitempty"`
	// Color is that of buttons and links, such as 1a56c4. It is darkened where it
	// could not be read. Default: a blue.
	Color string `json:"color,omitempty"`
	// ColorDark is Color for users who prefer dark colors; it is lightened where it
	// could not be read. Default: Color.
	ColorDark string `json:"color_dark,omitempty"`
	// Background is the color around the page's card. Default: a light gray.
	Background string `json:"background,omitempty"`
	// BackgroundDark is Background for users who prefer dark colors. Default: near
	// black.
	BackgroundDark string `json:"background_dark,omitempty"`
	// Templates is a folder with files that replace those of the pages, and with
	// their words in other languages. Placeholders. Default: none.
	Templates string `json:"templates,omitempty"`
	// Language is that of browsers that ask for none that the pages speak, as a
	// tag such as de. Default: en.
	Language string `json:"language,omitempty"`
}

// parseTheme reads
//
//	theme {
//		name       <text>
//		logo       <file> [<dark_file>]
//		color      <color> [<dark_color>]
//		background <color> [<dark_color>]
//		templates  <folder>
//		language   <tag>
//	}
func (s *Settings) parseTheme(d *caddyfile.Dispenser) error {
	t := &ThemeSettings{}
	if d.NextArg() {
		return d.Errf("theme: unexpected %q", d.Val())
	}
	s.Theme = t
	return parseBlockAt(d, map[string]word{
		"name":       once(text(&t.Name)),
		"logo":       once(oneOrTwo(&t.Logo, &t.LogoDark)),
		"color":      once(colors(&t.Color, &t.ColorDark)),
		"background": once(colors(&t.Background, &t.BackgroundDark)),
		"templates":  once(text(&t.Templates)),
		"language":   once(text(&t.Language)),
	}, s.Sources)
}

// oneOrTwo is a word with a value and perhaps another one for the dark.
func oneOrTwo(first, second *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) (err error) {
		if *first, err = value(d); err != nil {
			return err
		}
		if d.NextArg() {
			*second = d.Val()
		}
		return nil
	}
}

// colors is oneOrTwo for colors, which many write as a comment.
func colors(first, second *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if d.CountRemainingArgs() == 0 {
			return d.Errf("%s: a color such as 1a56c4 is missing (a # begins a comment)", name)
		}
		return oneOrTwo(first, second)(d)
	}
}

// parseTranslation reads
//
//	in <language> <description>
func parseTranslation(in *map[string]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		var language, description string
		if !d.AllArgs(&language, &description) || language == "" || description == "" {
			return d.Err("in: a language such as de and, in quotes, the words that users read are expected")
		}
		if _, again := (*in)[language]; again {
			return d.Errf("in %s: stands here twice", language)
		}
		if *in == nil {
			*in = make(map[string]string)
		}
		(*in)[language] = description
		return nil
	}
}

// provisionLook reads everything that pages are made of.
func (a *App) provisionLook() (err error) {
	config := issuer.LookConfig{}
	if t := a.Theme; t != nil {
		if config, err = a.lookConfig(t); err != nil {
			return err
		}
	}
	if a.look, err = issuer.NewLook(config); err != nil {
		word := "templates"
		if config.Templates == nil {
			word = "language"
		}
		return a.at(word, 0, fmt.Errorf("%s: %w", word, err))
	}
	for _, s := range a.Scopes {
		for language := range s.In {
			if !a.look.Speaks(language) {
				return atSource(s.Source, "", fmt.Errorf("scope %q: in %s: the pages do not speak that; a file %s.json in the folder of the word templates makes them", s.Name, language, language))
			}
		}
		if s.Link != "" {
			if u, err := url.Parse(s.Link); err != nil || u.Scheme != "https" || u.Host == "" {
				return atSource(s.Source, "", fmt.Errorf("scope %q: link %q is not an https URL", s.Name, s.Link))
			}
		}
	}
	if a.AppsScope != "" && !a.declares(a.AppsScope) {
		return a.at("apps_scope", 0, fmt.Errorf("apps_scope: scope %q is not declared", a.AppsScope))
	}
	return nil
}

func (a *App) lookConfig(t *ThemeSettings) (config issuer.LookConfig, err error) {
	config = issuer.LookConfig{
		Light: issuer.Colors{Action: t.Color, Background: t.Background}, Dark: issuer.Colors{Action: t.ColorDark, Background: t.BackgroundDark},
		Language: t.Language,
	}
	for word, colors := range map[string][]string{"color": {t.Color, t.ColorDark}, "background": {t.Background, t.BackgroundDark}} {
		for _, color := range colors {
			if err := issuer.CheckColor(color); color != "" && err != nil {
				return config, a.at(word, 0, fmt.Errorf("%s: %w", word, err))
			}
		}
	}
	if t.Name != "" {
		if config.Name, err = resolve("name", t.Name); err != nil {
			return config, a.at("name", 0, err)
		}
	}
	for _, logo := range []struct {
		path string
		into **issuer.Logo
	}{{t.Logo, &config.Logo}, {t.LogoDark, &config.LogoDark}} {
		if *logo.into, err = readLogo(logo.path); err != nil {
			return config, a.at("logo", 0, err)
		}
	}
	if t.LogoDark != "" && t.Logo == "" {
		return config, a.at("theme", 0, errors.New("theme: logo_dark needs logo"))
	}
	if t.Templates != "" {
		folder, err := resolve("templates", t.Templates)
		if err != nil {
			return config, a.at("templates", 0, err)
		}
		config.Templates = os.DirFS(folder)
		if info, err := fs.Stat(config.Templates, "."); err != nil || !info.IsDir() {
			return config, a.at("templates", 0, fmt.Errorf("templates: %s is not a folder that can be read", folder))
		}
	}
	return config, nil
}

func readLogo(setting string) (*issuer.Logo, error) {
	if setting == "" {
		return nil, nil
	}
	path, err := resolve("logo", setting)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("logo: %w", err)
	}
	logo, err := issuer.NewLogo(data)
	if err != nil {
		return nil, fmt.Errorf("logo: %s %w", path, err)
	}
	return logo, nil
}
