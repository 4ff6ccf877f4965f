-- What did the last run add?
-- `images.run_id` names the run that read an image; `runs` has the times.
SELECT text, count(*) AS n
FROM words JOIN images USING (image_id)
WHERE run_id = (SELECT arg_max(run_id, started) FROM runs)
GROUP BY text ORDER BY n DESC, text;

-- Which images have no text?
-- `status` is words, empty or failed; failures and their reasons are in `errors`.
SELECT image_id, width, height, damage
FROM images WHERE status = 'empty' ORDER BY image_id;

-- Which words are in several images?
-- `text_key` is the text without case, accents and punctuation.
SELECT text_key, count(DISTINCT image_id) AS images, count(*) AS n
FROM words WHERE text_key <> ''
GROUP BY text_key HAVING images > 1 ORDER BY images DESC, n DESC, text_key;

-- What does one image say, in order?
-- `line_index` counts lines in reading order, columns one after the other; text on its side or head goes by its angle. All images at once: `textspot export DIR -f txt`.
SELECT string_agg(text, ' ' ORDER BY round(cos(radians(angle_deg))) * x_min
                             + round(sin(radians(angle_deg))) * y_min) AS line
FROM words WHERE image_id = (SELECT min(image_id) FROM images WHERE status = 'words')
GROUP BY line_index ORDER BY line_index;

-- How many words came from which source on which day?
SELECT started::DATE AS day,
       CASE WHEN member IS NULL THEN regexp_replace(source, '[^/]*$', '') ELSE source END AS source,
       count(*) AS images, sum(n_words)::BIGINT AS words
FROM images JOIN runs USING (run_id)
GROUP BY ALL ORDER BY day, source;

-- Which pairs of words stand near each other?
-- Words that follow each other on a line: `textspot search DIR first second`.
SELECT a.text AS a, b.text AS b, a.image_id
FROM words a JOIN words b ON a.image_id = b.image_id AND a.word_index < b.word_index
WHERE sqrt(pow(a.x_min + a.x_max - b.x_min - b.x_max, 2)
         + pow(a.y_min + a.y_max - b.y_min - b.y_max, 2)) / 2
      < 4 * greatest(a.y_max - a.y_min, b.y_max - b.y_min)
  AND least(a.text_confidence, b.text_confidence) > 0.8
ORDER BY a.image_id, a.word_index, b.word_index;

-- Which words should a person check?
-- Their pictures, with labels to correct: `textspot export DIR -f crops --min-confidence 0.2 --max-confidence 0.6 --out check/`.
SELECT text, round(text_confidence, 2) AS sure, image_id, word_index
FROM words WHERE text_confidence BETWEEN 0.2 AND 0.6
ORDER BY text_confidence;

-- Which images are the same, byte for byte?
SELECT content_sha256[:12] AS sha256, count(*) AS copies, min(image_id) AS first
FROM images WHERE page = 0 AND content_sha256 IS NOT NULL
GROUP BY content_sha256 HAVING copies > 1 ORDER BY copies DESC, first;

-- Where are numbers of two digits and more?
-- A model that reads punctuation gives `12.00`; `text_key` is `1200` with any model.
SELECT text, image_id, x_min, y_min
FROM words WHERE regexp_matches(text, '^[0-9]{2,}$') AND text_confidence > 0.5
ORDER BY image_id, line_index, x_min;

-- Which images failed, and why?
-- `textspot retry-failed DIR` tries again what may pass now.
SELECT stage, kind, count(*) AS images, min(message) AS example
FROM errors GROUP BY stage, kind ORDER BY images DESC;
