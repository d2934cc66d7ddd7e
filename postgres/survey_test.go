//go:build unix

package postgres_test

import "testing"

// STA-04: few rows are counted, many estimated, and nothing is read as a whole.
func TestSurveyCountsFewAndEstimatesMany(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.session("jobs:read")
	survey, err := s.db.Survey(s.ctx)
	s.must(err)
	if survey.Version == 0 || survey.Version != survey.Latest || survey.Server == "" {
		t.Errorf("%+v", survey)
	}
	if survey.Sessions.Rows != 1 || survey.Users.Rows != 1 || survey.Registered.Rows != 0 || survey.Sessions.Estimated {
		t.Errorf("%+v", survey)
	}
	s.exec(`INSERT INTO gpt_oauth_events (event_type) SELECT 'x' FROM generate_series(1, 30000)`)
	s.exec(`ANALYZE gpt_oauth_events`)
	survey, err = s.db.Survey(s.ctx)
	s.must(err)
	if !survey.Events.Estimated || survey.Events.Rows < 20_000 || survey.Events.Rows > 40_000 {
		t.Errorf("30,000 rows: %+v", survey.Events)
	}
}
